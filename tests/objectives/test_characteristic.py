"""Characteristic functions against loops in NumPy and closed forms; frequencies, drawn and learned.
"""

from __future__ import annotations

import cmath

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.errors import ConfigError
from dd_jax.objectives.characteristic import characteristic_function
from dd_jax.objectives.frequencies import learned_frequencies, normal_frequencies
from dd_jax.types import Outputs

PROBE = normal_frequencies(6)


def reference(u, v, frequencies, alpha, beta):
    """The published formula, image by image in float64; nothing vanishes in these tests."""
    total = 0.0
    for t in frequencies:
        phi = [sum(cmath.exp(1j * float(np.dot(t, x))) for x in side) / len(side)
               for side in (u, v)]
        amplitude = (abs(phi[0]) - abs(phi[1])) ** 2
        phase = 2 * (abs(phi[0]) * abs(phi[1]) - (phi[0] * phi[1].conjugate()).real)
        total += (alpha * amplitude + beta * phase) ** 0.5
    return total / len(frequencies)


def samples(seed=0, sizes=(7, 3), length=5):
    rng = np.random.default_rng(seed)
    return (*(rng.normal(size=(n, length)) for n in sizes), rng.normal(size=(6, length)))


@pytest.mark.parametrize("alpha, beta", [(0.5, 0.5), (0.3, 0.7), (1.0, 0.2), (1.0, 0.0),
                                         (0.0, 1.0)])
def test_the_published_formula(alpha, beta):
    u, v, t = samples()
    compare = characteristic_function(PROBE, alpha=alpha, beta=beta).compare
    with jax.enable_x64(True):
        ours = float(jax.jit(compare)(*map(jnp.asarray, (u, v, t))))
        assert ours == pytest.approx(reference(u, v, t, alpha, beta), rel=1e-10)
    single = jax.jit(compare)(*(jnp.asarray(x, jnp.float32) for x in (u, v, t)))
    assert single.dtype == jnp.float32 and float(single) == pytest.approx(ours, rel=1e-4)


def test_equal_weights_are_the_distance_of_the_two_functions():
    u, v, t = samples(1)
    phi = [np.exp(1j * side @ t.T).mean(0) for side in (u, v)]
    wanted = np.mean(np.sqrt(np.abs(phi[0] - phi[1]) ** 2 / 2))
    with jax.enable_x64(True):
        ours = characteristic_function(PROBE).compare(*map(jnp.asarray, (u, v, t)))
    assert float(ours) == pytest.approx(wanted, rel=1e-10)


def test_normal_samples_have_the_characteristic_function_of_a_normal_distribution():
    """Against a single point at 0, whose function is 1: sqrt(|Phi - 1|^2 / 2)."""
    rng = np.random.default_rng(2)
    mean, deviation = np.array([0.4, -0.8, 0.1]), 0.7
    u = mean + deviation * rng.normal(size=(200_000, 3))
    t = rng.normal(size=(6, 3))
    phi = np.exp(1j * t @ mean - deviation**2 * np.sum(t**2, axis=1) / 2)
    ours = characteristic_function(PROBE).compare(
        *(jnp.asarray(x, jnp.float32) for x in (u, np.zeros((1, 3)), t)))
    assert float(ours) == pytest.approx(np.mean(np.abs(phi - 1)) / 2**0.5, abs=3e-3)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_identical_sets_and_vanishing_functions_have_finite_derivatives(alpha):
    discrepancy = characteristic_function(PROBE, alpha=alpha, beta=1 - alpha)
    value_and_grad = jax.jit(jax.value_and_grad(discrepancy.compare, argnums=1))
    u, _, t = (jnp.asarray(x, jnp.float32) for x in samples())
    value, gradient = value_and_grad(u, u, t)
    assert float(value) < 1e-5 and np.all(np.isfinite(gradient))
    # Phi(pi) of the points 0 and 1 vanishes.
    points = jnp.array([[0.0], [1.0]])
    for other in (points, jnp.array([[0.3], [0.9]]), -points):
        value, gradient = value_and_grad(other, points, jnp.array([[jnp.pi]]))
        assert np.isfinite(value) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_derivatives_are_central_differences(alpha):
    compare = characteristic_function(PROBE, alpha=alpha, beta=1 - alpha).compare
    with jax.enable_x64(True):
        u, v, t = map(jnp.asarray, samples(3))
        way = jnp.asarray(np.random.default_rng(4).normal(size=v.shape))

        @jax.jit
        def both(v, t):
            ends = [compare(u, v + h * way, t) for h in (1e-5, -1e-5)]
            return (ends[0] - ends[1]) / 2e-5, jnp.vdot(jax.grad(compare, 1)(u, v, t), way)

        numeric, analytic = both(v, t)
        assert float(analytic) == pytest.approx(float(numeric), rel=1e-7)


def test_features_are_brought_to_length_1_and_zeros_have_a_finite_derivative():
    collect = characteristic_function(PROBE).collect
    features = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0], [-2e4, 0.0]])

    def kept(x):
        return collect(Outputs(jnp.zeros((4, 2)), x))

    np.testing.assert_allclose(kept(features), [[0.6, 0.8], [0, 0], [1, 0], [-1, 0]], rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(kept(x)))(features)))


def test_normal_frequencies():
    probe = normal_frequencies(4000)
    params = probe.init(jax.random.key(0), jax.ShapeDtypeStruct((9, 3), jnp.float32))
    t, again, other = (np.asarray(probe.draw(params, jax.random.key(i))) for i in (1, 1, 2))
    assert t.shape == (4000, 3) and t.dtype == np.float32
    np.testing.assert_array_equal(t, again)
    assert np.any(t != other) and probe.optimizer is None
    np.testing.assert_allclose(np.cov(t.T), np.eye(3), atol=0.1)


def sampling_network(params, noise):
    """psi in NumPy."""
    x = np.asarray(noise, np.float64)
    for i in range(3):
        dense, norm = params[f"dense{i}"], params[f"norm{i}"]
        x = x @ np.asarray(dense["kernel"], np.float64) + dense["bias"]
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * norm["scale"] + norm["bias"]
        x = np.where(x > 0, x, 0.2 * x) if i < 2 else np.tanh(x)
    return x


def test_learned_frequencies_are_a_mixture_of_scaled_normals_or_bounded():
    like = jnp.ones((2, 5))
    key = jax.random.key(1)
    noise_key, normal_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (3, 5))
    mixture, tiled = (learned_frequencies(12, components=3, kind=kind)
                      for kind in ("scale_mixture", "tiled"))
    params = jax.jit(mixture.init)(jax.random.key(0), like)
    rows = sampling_network(params, noise)
    bounded, mixed = jax.jit(lambda: (tiled.draw(params, key), mixture.draw(params, key)))()
    np.testing.assert_allclose(bounded, rows, rtol=1e-3, atol=1e-4)
    assert np.abs(rows).max() <= 1.0
    wanted = np.tile(rows, (4, 1)) * np.asarray(jax.random.normal(normal_key, (12, 5)))
    np.testing.assert_allclose(mixed, wanted, rtol=1e-3, atol=3e-4)
    # Tiled to its full number the discrepancy is that of the distinct ones.
    u, v = (jnp.asarray(x, jnp.float32) for x in samples()[:2])
    compare = characteristic_function(tiled).compare
    once, four_times = (compare(u, v, jnp.tile(bounded, (n, 1))) for n in (1, 4))
    assert float(once) == pytest.approx(float(four_times), rel=1e-6)


def test_ascent_makes_the_discrepancy_larger():
    probe = learned_frequencies(32, components=8)
    u, v, _ = (jnp.asarray(x, jnp.float32) for x in samples(5, (40, 10)))
    unit = [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (u, v)]
    compare = characteristic_function(probe).compare
    keys = jax.random.split(jax.random.key(2), 16)

    def mean_discrepancy(params):
        return jnp.mean(jax.vmap(lambda k: compare(*unit, probe.draw(params, k)))(keys))

    # The default is made for a loss multiplied by 300; here it is not.
    faster = optax.sgd(0.3, momentum=0.5)

    @jax.jit
    def climb(params):
        def step(carry, _):
            params, state = carry
            value, gradient = jax.value_and_grad(lambda p: -mean_discrepancy(p))(params)
            updates, state = faster.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), (-value, gradient)

        return jax.lax.scan(step, (params, faster.init(params)), None, length=10)[1]

    values, gradients = climb(jax.jit(probe.init)(jax.random.key(0), unit[0]))
    assert np.all(np.diff(values) > 0) and values[-1] > 1.05 * values[0]
    first = [np.asarray(g[0]) for g in jax.tree.leaves(gradients["dense0"]["kernel"])]
    assert all(np.all(np.isfinite(g)) and np.any(g != 0) for g in first)


@pytest.mark.parametrize("build, message", [
    (lambda: characteristic_function(PROBE, alpha=-1.0), "alpha is -1.0"),
    (lambda: characteristic_function(PROBE, beta=float("nan")), "beta is nan"),
    (lambda: characteristic_function(PROBE, alpha=0.0, beta=0.0), "nothing is compared"),
    (lambda: normal_frequencies(0), "count is 0"),
    (lambda: learned_frequencies(32, kind="tile"), "did you mean 'tiled'"),
    (lambda: learned_frequencies(32, components=1), "components is 1"),
    (lambda: learned_frequencies(32, components=64), "divisor"),
    (lambda: learned_frequencies(32, components=5, kind="tiled"), "divisor"),
], ids=["alpha", "beta", "both", "count", "kind", "one", "many", "uneven"])
def test_settings_that_cannot_be_are_refused(build, message):
    with pytest.raises(ConfigError, match=message):
        build()
