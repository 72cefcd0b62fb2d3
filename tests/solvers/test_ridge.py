"""The ridge solver against a float64 dense solve, finite differences and degenerate sets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers import fit_features

MODES = ["trace_mean", "trace_sum", "absolute"]


def _reference(f, y, reg, mode):
    f, y = np.asarray(f, np.float64), np.asarray(y, np.float64)
    gram = f @ f.T
    mu = {"trace_mean": reg * np.trace(gram) / len(f), "trace_sum": reg * np.trace(gram),
          "absolute": reg}[mode]
    return f.T @ np.linalg.solve(gram + mu * np.eye(len(f)), y)


def _problem(n=6, p=20, k=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)).astype(np.float32), rng.normal(size=(n, k)).astype(np.float32)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reg", [1e-6, 1e-2, 1.0])
def test_weights_equal_dense_solve(mode, reg):
    f, y = _problem()
    fit = fit_features(jnp.asarray(f), jnp.asarray(y), ridge=reg, mode=mode)
    np.testing.assert_allclose(fit.weights, _reference(f, y, reg, mode), rtol=2e-5, atol=1e-6)
    assert int(fit.info.jitter_steps) == 0


def test_small_ridge_is_exact_where_float32_is_not():
    """Nearly collinear features: condition 1e7, which a float32 factor would not survive."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=(1, 50))
    f = (base + 1e-3 * rng.normal(size=(10, 50))).astype(np.float32)
    y = rng.normal(size=(10, 2)).astype(np.float32)
    fit = fit_features(jnp.asarray(f), jnp.asarray(y), ridge=1e-6)
    expected = _reference(f, y, 1e-6, "trace_mean")
    np.testing.assert_allclose(fit.weights, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("mode", MODES)
def test_gradient_equals_central_differences(mode):
    with jax.enable_x64(True):
        f, y = (jnp.asarray(a, jnp.float64) for a in _problem(4, 7, 2))
        t = jnp.asarray(np.random.default_rng(2).normal(size=(5, 7)))

        def loss(f, y):
            return jnp.sum(jnp.tanh(t @ fit_features(f, y, ridge=0.1, mode=mode).weights))

        gradients = jax.grad(loss, (0, 1))(f, y)
        for i, value in enumerate((f, y)):
            direction = jnp.asarray(np.random.default_rng(i).normal(size=value.shape))
            step = 1e-5

            def shifted(s, i=i, value=value, direction=direction):
                args = [f, y]
                args[i] = value + s * direction
                return loss(*args)

            numeric = (shifted(step) - shifted(-step)) / (2 * step)
            analytic = jnp.vdot(gradients[i], direction)
            np.testing.assert_allclose(analytic, numeric, rtol=1e-7)


def test_stop_trace_changes_only_the_gradient():
    f, y = map(jnp.asarray, _problem())

    def loss(f, stop):
        return jnp.sum(fit_features(f, y, ridge=1.0, stop_trace=stop).weights ** 2)

    assert loss(f, True) == loss(f, False)
    assert not np.allclose(jax.grad(loss)(f, True), jax.grad(loss)(f, False))
    np.testing.assert_allclose(  # the reference: plain autodiff with the trace held constant
        jax.grad(loss)(f, True), jax.grad(_plain)(f, y), rtol=1e-3, atol=1e-5
    )


def _plain(f, y):
    gram = f @ f.T
    mu = jax.lax.stop_gradient(jnp.trace(gram) / len(f))
    return jnp.sum((f.T @ jnp.linalg.solve(gram + mu * jnp.eye(len(f)), y)) ** 2)


@pytest.mark.parametrize("name", ["zero", "duplicates", "constant", "rank_deficient"])
@pytest.mark.parametrize("reg", [0.0, 1e-6])
@pytest.mark.parametrize("mode", ["trace_mean", "absolute"])
def test_singular_sets_stay_finite(name, reg, mode):
    rng = np.random.default_rng(0)
    f = {
        "zero": np.zeros((4, 6)), "duplicates": np.repeat(rng.normal(size=(2, 6)), 2, axis=0),
        "constant": np.ones((4, 6)), "rank_deficient": rng.normal(size=(4, 2)) @ np.ones((2, 6)),
    }[name]
    f = jnp.asarray(f, jnp.float32)
    y = jnp.eye(4)

    def loss(f):
        fit = fit_features(f, y, ridge=reg, mode=mode)
        return jnp.sum(fit.weights**2), fit.info

    (value, info), gradient = jax.value_and_grad(loss, has_aux=True)(f)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))
    assert np.isfinite(info.ridge)


def test_duplicates_agree_with_the_pseudo_inverse():
    rng = np.random.default_rng(0)
    f = np.repeat(rng.normal(size=(2, 6)), 2, axis=0).astype(np.float32)
    y = np.repeat(rng.normal(size=(2, 3)), 2, axis=0).astype(np.float32)
    fit = fit_features(jnp.asarray(f), jnp.asarray(y), ridge=1e-9)
    np.testing.assert_allclose(fit.weights, np.linalg.pinv(f) @ y, atol=1e-4)


def test_jit_scan_and_vmap_agree():
    f, y = map(jnp.asarray, _problem())
    plain = jax.grad(lambda f: jnp.sum(fit_features(f, y).weights ** 2))(f)
    fs = jnp.stack([f, f])
    grad = jax.grad(lambda f: jnp.sum(fit_features(f, y).weights ** 2))
    for out in (jax.jit(jax.vmap(grad))(fs), jax.jit(lambda a: jax.lax.map(grad, a))(fs)):
        np.testing.assert_allclose(out[1], plain, rtol=1e-3, atol=1e-4)
        assert out.dtype == jnp.float32


@pytest.mark.parametrize("options", [{"ridge": -1.0}, {"ridge": float("nan")},
                                     {"ridge": float("inf")}, {"mode": "tracemean"}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ConfigError, match=str(next(iter(options.values())))):
        fit_features(jnp.eye(2), jnp.eye(2), **options)


def test_vmap_from_outside_of_a_traced_fit():
    rng = np.random.default_rng(0)
    f = jnp.asarray(rng.normal(size=(3, 4, 8)), jnp.float32)
    y = jnp.asarray(rng.normal(size=(3, 4, 2)), jnp.float32)

    def value(f, y):
        return jnp.sum(fit_features(f, y).weights ** 2)

    values, gradients = jax.vmap(jax.jit(jax.value_and_grad(value)))(f, y)
    for i in range(3):
        one, gradient = jax.value_and_grad(value)(f[i], y[i])
        np.testing.assert_allclose(values[i], one, rtol=1e-4)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-3, atol=1e-5)
