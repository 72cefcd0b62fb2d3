"""Kernel ridge on a Gram matrix and its derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers import MODES, fit_features, fit_kernel, in_float64


def _problem(n=6, p=20, k=3, seed=0):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(n, p))
    return f @ f.T, rng.normal(size=(n, k)), f


def _mu(gram, reg, mode):
    return {"trace_mean": reg * np.trace(gram) / len(gram), "trace_sum": reg * np.trace(gram),
            "absolute": reg}[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reg", [1e-6, 1.0])
def test_alpha_equals_dense_solve(mode, reg):
    gram, y, _ = _problem()
    expected = np.linalg.solve(gram + _mu(gram, reg, mode) * np.eye(6), y)
    with jax.enable_x64(True):
        fit = fit_kernel(jnp.asarray(gram), jnp.asarray(y), ridge=reg, mode=mode)
        np.testing.assert_allclose(fit.alpha, expected, rtol=1e-10)
    narrow = fit_kernel(jnp.asarray(gram, jnp.float32), jnp.asarray(y, jnp.float32), ridge=reg,
                        mode=mode)
    assert narrow.alpha.dtype == jnp.float32
    np.testing.assert_allclose(narrow.alpha, expected, rtol=1e-4)
    np.testing.assert_allclose(narrow.info.ridge, _mu(gram, reg, mode), rtol=1e-5)


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_gradient_equals_central_differences(mode, stop):
    gram, y, _ = _problem(4, 7, 2)
    with jax.enable_x64(True):
        gram, y = jnp.asarray(gram), jnp.asarray(y)
        cross = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)))

        def loss(gram, y, ridge=0.1, mode=mode):
            return jnp.sum(jnp.tanh(cross @ fit_kernel(gram, y, ridge=ridge, mode=mode,
                                                       stop_trace=stop).alpha))

        gradients = jax.grad(loss, (0, 1))(gram, y)
        np.testing.assert_array_equal(gradients[0], gradients[0].T)
        rng = np.random.default_rng(3)
        moves = rng.normal(size=gram.shape), rng.normal(size=y.shape)
        held = {} if not stop else {"mode": "absolute", "ridge": float(_mu(gram, 0.1, mode))}
        for i in range(2):
            def along(s, i=i):
                args = [gram, y]
                args[i] = args[i] + s * moves[i]
                return loss(*args, **held)

            numeric = (along(1e-5) - along(-1e-5)) / 2e-5
            np.testing.assert_allclose(jnp.vdot(gradients[i], moves[i]), numeric, rtol=1e-7)


def test_agrees_with_the_fit_on_features():
    gram, y, f = _problem()
    with jax.enable_x64(True):
        weights = fit_features(jnp.asarray(f), jnp.asarray(y), ridge=1e-3, form="dual").weights
        alpha = fit_kernel(jnp.asarray(gram), jnp.asarray(y), ridge=1e-3).alpha
        np.testing.assert_allclose(f.T @ np.asarray(alpha), weights, rtol=1e-10)


@pytest.mark.parametrize("reg", [0.0, 1e-6])
@pytest.mark.parametrize("name", ["zero", "ones", "duplicates", "indefinite"])
def test_singular_grams_stay_finite_and_say_so(name, reg):
    base = np.random.default_rng(0).normal(size=(2, 6))
    twice = np.repeat(base, 2, axis=0)
    gram = {"zero": np.zeros((4, 4)), "ones": np.ones((4, 4)), "duplicates": twice @ twice.T,
            "indefinite": np.diag([1.0, 1.0, 1.0, -1e-5])}[name]

    gram = jnp.asarray(gram, jnp.float32)

    def loss(moved):
        fit = fit_kernel(moved, jnp.eye(4), ridge=reg)
        return jnp.sum((gram @ fit.alpha) ** 2), fit

    (value, fit), gradient = jax.value_and_grad(loss, has_aux=True)(gram)
    assert np.all(np.isfinite(fit.alpha)) and np.isfinite(value) and np.all(np.isfinite(gradient))
    assert np.isfinite(fit.info.ridge) and fit.info.ridge > 0
    assert (int(fit.info.jitter_steps) > 0) == (name == "indefinite" or (reg == 0 and
                                                                         name != "zero"))


def test_float64_kernel_survives_where_a_float32_one_does_not():
    """Images that differ by 1e-4: the float32 gram is rounding noise at the ridge's scale."""
    rng = np.random.default_rng(0)
    x = (1.0 + 1e-4 * rng.normal(size=(8, 32))).astype(np.float32)
    y = rng.normal(size=(8, 2)).astype(np.float32)

    def kernel(x):
        return (x @ x.T / x.shape[1]) ** 3

    def loss(x, gram):
        return jnp.sum(fit_kernel(gram(x), jnp.asarray(y, x.dtype), ridge=1e-10).alpha ** 2)

    wide = x.astype(np.float64)
    gram = kernel(wide)
    exact = np.linalg.solve(gram + 1e-10 * np.trace(gram) / 8 * np.eye(8), y)
    exact = (exact**2).sum()
    value, gradient = jax.jit(jax.value_and_grad(lambda x: loss(x, in_float64(kernel))))(x)
    assert value.dtype == gradient.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert abs(float(loss(jnp.asarray(x), kernel)) - exact) > 1e-2 * abs(exact)
    with jax.enable_x64(True):
        reference = jax.grad(lambda x: loss(x, kernel))(jnp.asarray(wide))
        np.testing.assert_allclose(gradient, reference, rtol=1e-4,
                                   atol=1e-5 * float(jnp.abs(reference).max()))


@pytest.mark.parametrize("gram, targets, options, message", [
    (np.ones((2, 3)), np.ones((2, 1)), {}, r"gram has shape \(2, 3\)"),
    (np.ones((2, 2)), np.ones((3, 1)), {}, r"targets has shape \(3, 1\), expected \[2, m\]"),
    (np.ones((2, 2)), np.ones(2), {}, r"targets has shape \(2,\)"),
    (np.ones((0, 0)), np.ones((0, 1)), {}, "at least one entry"),
    (np.eye(2, dtype=int), np.ones((2, 1)), {}, "int"),
    (np.eye(2), np.ones((2, 1)), {"ridge": -1e-3}, "-0.001"),
    (np.eye(2), np.ones((2, 1)), {"mode": "trace"}, "trace_mean"),
])
def test_wrong_input_is_refused(gram, targets, options, message):
    with pytest.raises(ConfigError, match=message):
        fit_kernel(jnp.asarray(gram), jnp.asarray(targets), **options)
