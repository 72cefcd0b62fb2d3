"""The primal form, closed-form labels and the exact linear set."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers import MODES, exact_linear_set, fit_features, label_solve


def _problem(n=12, p=5, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)), rng.normal(size=(n, k))


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_primal_equals_dual_with_gradients(mode, stop):
    with jax.enable_x64(True):
        f, y = map(jnp.asarray, _problem())

        def loss(f, y, form):
            fit = fit_features(f, y, ridge=1e-3, mode=mode, stop_trace=stop, form=form)
            return jnp.sum(jnp.tanh(fit.weights)), fit

        run = jax.value_and_grad(loss, (0, 1), has_aux=True)
        ((_, dual), dual_gradients), ((_, primal), primal_gradients) = (
            run(f, y, form) for form in ("dual", "primal")
        )
        np.testing.assert_allclose(primal.weights, dual.weights, rtol=1e-10)
        np.testing.assert_allclose(primal.info.ridge, dual.info.ridge, rtol=1e-12)
        for a, b in zip(primal_gradients, dual_gradients):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max()))


def test_auto_takes_the_smaller_system():
    f, y = (jnp.asarray(a, jnp.float32) for a in _problem())
    auto = fit_features(f, y).weights
    np.testing.assert_array_equal(auto, fit_features(f, y, form="primal").weights)
    wide = fit_features(f.T, y[:5]).weights
    np.testing.assert_array_equal(wide, fit_features(f.T, y[:5], form="dual").weights)


@pytest.mark.parametrize("name", ["zero", "constant"])
def test_primal_of_singular_features_stays_finite(name):
    f = {"zero": jnp.zeros((9, 4)), "constant": jnp.ones((9, 4))}[name]
    y = jnp.eye(9)[:, :2]

    def loss(f):
        fit = fit_features(f, y, ridge=0.0, mode="absolute", form="primal")
        return jnp.sum(fit.weights**2), fit.info

    (value, info), gradient = jax.value_and_grad(loss, has_aux=True)(f)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    assert int(info.jitter_steps) > 0


def _blocks(n=5, big=40, k=3, seed=0):
    """Kernel blocks of a full-rank RBF kernel in float64, and targets."""
    rng = np.random.default_rng(seed)
    real, y = rng.normal(size=(big, 3)), rng.normal(size=(big, k))
    x = 2 * real[:n] + 0.5 * rng.normal(size=(n, 3))

    def kernel(a, b):
        return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(-1))

    return kernel(x, x), kernel(real, x), y


def test_label_solve_equals_its_formula_and_the_least_squares_labels():
    k_ss, k_ts, y = _blocks()
    eps = 1e-6 / 5
    formula = (k_ss + eps * np.eye(5)) @ np.linalg.solve(k_ts.T @ k_ts + eps * np.eye(5),
                                                         k_ts.T @ y)
    ideal = np.linalg.pinv(k_ts @ np.linalg.inv(k_ss)) @ y
    with jax.enable_x64(True):
        k, t = jnp.asarray(k_ts), jnp.asarray(y)
        for chunk in (7, 40):
            solved = label_solve(jnp.asarray(k_ss), lambda r: (k[r], t[r]), 40, chunk=chunk)
            np.testing.assert_allclose(solved.labels, formula, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(solved.labels, ideal, rtol=1e-3)


def test_no_labels_fit_better_than_the_solved_ones():
    k_ss, k_ts, y = _blocks()
    k, t = jnp.asarray(k_ts, jnp.float32), jnp.asarray(y, jnp.float32)
    solved = label_solve(jnp.asarray(k_ss, jnp.float32), lambda r: (k[r], t[r]), 40)
    assert solved.labels.dtype == jnp.float32

    def error(labels):
        return np.sum((k_ts @ np.linalg.solve(k_ss, labels) - y) ** 2)

    best = error(np.asarray(solved.labels, np.float64))
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert best < error(solved.labels + 0.05 * rng.normal(size=(5, 3)))


def test_label_solve_of_duplicate_images_stays_finite():
    k_ss, k_ts, y = _blocks()
    pick = np.array([0, 0, 1, 1, 2])
    k, t = jnp.asarray(k_ts[:, pick], jnp.float32), jnp.asarray(y, jnp.float32)
    gram = jnp.asarray(k_ss[np.ix_(pick, pick)], jnp.float32)
    solved = label_solve(gram, lambda r: (k[r], t[r]), 40, ridge=0.0)
    assert np.all(np.isfinite(solved.labels))
    np.testing.assert_allclose(solved.labels[0], solved.labels[1], atol=1e-3)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_exact_linear_set_returns_its_map(sigma):
    with jax.enable_x64(True):
        weights = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)))
        f, y = exact_linear_set(weights, ridge=0.1, sigma=sigma)
        assert f.shape == (4, 9) and y.shape == (4, 4)
        fit = fit_features(f, y, ridge=0.1, mode="absolute")
        np.testing.assert_allclose(fit.weights, weights, rtol=1e-10, atol=1e-10)


def _take(rows):
    return jnp.ones((len(rows), 3)), jnp.ones((len(rows), 2))


@pytest.mark.parametrize("call, message", [
    (lambda: fit_features(jnp.ones((3, 2)), jnp.ones((2, 1))), r"targets has shape \(2, 1\)"),
    (lambda: fit_features(jnp.ones(3), jnp.ones((3, 1))), r"features has shape \(3,\)"),
    (lambda: fit_features(jnp.ones((2, 2)), jnp.ones((2, 1)), form="dula"), "dual"),
    (lambda: label_solve(jnp.eye(3), _take, 2), "2 real rows for 3 images"),
    (lambda: label_solve(jnp.eye(2), _take, 4), "3 columns"),
    (lambda: exact_linear_set(jnp.ones((2, 3))), "no more outputs than features"),
    (lambda: exact_linear_set(jnp.ones((3, 2)), sigma=0.0), "sigma is 0.0"),
], ids=range(7))
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
