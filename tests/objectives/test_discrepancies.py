"""Discrepancies of given features and activation maps, against float64 NumPy with loops."""

from __future__ import annotations

import functools
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import objectives
from dd_jax.errors import ConfigError
from dd_jax.objectives.attention import attention_map
from dd_jax.types import Outputs
from tests.objectives import reference_distributions as reference
from tests.objectives.reference_gradients import central_differences

POWERS = (1, 4)
KERNELS = ("gaussian", "linear", "polynomial", "laplace")
LAYERS = ((3, 3, 2), (2, 2, 3), (2, 2, 2))  # three blocks
DISCREPANCIES = {
    "mean": objectives.mean_features(),
    **{f"attention{p}": objectives.attention(power=p, weight=0.3) for p in POWERS},
    **{kernel: objectives.kernel_means(kernel) for kernel in KERNELS},
}


def side(seed, count, *, scale=0.7):
    rng = np.random.default_rng(seed)
    maps = [np.maximum(rng.normal(size=(count, *shape)), 0.0) + 0.05 for shape in LAYERS]
    return maps, scale * rng.normal(size=(count, 5)) + 0.3


def distance(discrepancy, real, synthetic):
    def kept(maps, features):
        out = discrepancy.collect(Outputs(jnp.zeros((len(features), 3)), features, tuple(maps)))
        return jax.tree.map(lambda x: x.mean(axis=0), out) if discrepancy.means else out

    return discrepancy.compare(kept(*real), kept(*synthetic), None)


@functools.cache
def compiled(name):
    return jax.jit(jax.value_and_grad(lambda s, r: distance(DISCREPANCIES[name], r, s)))


def value_and_slope(name, real, synthetic):
    with jax.enable_x64(True):
        value, slope = compiled(name)(jax.tree.map(jnp.asarray, synthetic),
                                      jax.tree.map(jnp.asarray, real))
        assert value.dtype == jnp.float64
        return float(value), jax.tree.map(np.asarray, slope)


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_a_discrepancy_and_its_slope_are_those_of_the_formula(name):
    real, synthetic = side(0, 4), side(1, 3, scale=1.2)
    value, (to_maps, to_features) = value_and_slope(name, real, synthetic)
    np.testing.assert_allclose(value, reference.by_name(name, real, synthetic), rtol=1e-10)
    assert value > 1e-3
    # The bandwidth is a constant of the derivative.
    width = reference.bandwidth(real[1], synthetic[1])
    slope = central_differences(
        lambda f: reference.by_name(name, real, (synthetic[0], f), width), synthetic[1])
    np.testing.assert_allclose(to_features, slope, rtol=0, atol=1e-7 * np.abs(slope).max())
    if not name.startswith("attention"):
        return
    for layer, found in enumerate(to_maps):
        def of_layer(maps, layer=layer):
            others = [*synthetic[0][:layer], maps, *synthetic[0][layer + 1 :]]
            return reference.by_name(name, real, (others, synthetic[1]))

        slope = central_differences(of_layer, synthetic[0][layer])
        assert bool(slope.any()) is (layer < len(LAYERS) - 1)  # the last block has no part
        np.testing.assert_allclose(found, slope, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_equal_sets_are_at_distance_zero_with_a_finite_slope(name):
    real = side(0, 4)
    dark = [np.zeros_like(m) for m in real[0]], np.zeros_like(real[1])
    alike = [np.ones_like(m) for m in real[0]], np.ones_like(real[1])
    for one in (real, dark, alike):
        value, slope = value_and_slope(name, one, one)
        assert abs(value) < 1e-12
        for leaf in jax.tree.leaves(slope):
            np.testing.assert_allclose(leaf, 0.0, atol=1e-12)


def test_linear_means_are_the_distance_of_means():
    real, synthetic = side(0, 4), side(1, 3)
    expected = reference.mean_distance(real[1], synthetic[1])
    np.testing.assert_allclose(value_and_slope("linear", real, synthetic)[0], expected, rtol=1e-12)


def test_the_gaussian_mean_discrepancy_of_two_normal_distributions():
    """Evenly spaced quantiles instead of samples: double sums are then close to the integrals."""
    count, shift, deviations = 400, np.array([1.0]), (1.0, 0.6)
    normal = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    x, y = (m + s * np.array(normal)[:, None] for m, s in zip((0 * shift, shift), deviations))
    first, second = (s**2 for s in deviations)
    width = (2 * first + 2 * second + 2 * (first + second + shift @ shift)) / 4
    expected = 0.0
    for m in (1 / 4, 1 / 2, 1, 2, 4):
        expected += sum(reference.gaussians_apart(0 * shift, (s, s), m * width) for s in deviations)
        expected -= 2 * reference.gaussians_apart(shift, deviations, m * width)
    with jax.enable_x64(True):
        compare = jax.jit(objectives.kernel_means().compare, static_argnums=2)
        value = float(compare(jnp.asarray(x), jnp.asarray(y), None))
    np.testing.assert_allclose(value, expected, rtol=5e-3)


def test_attention_does_not_see_brightness_and_its_distance_is_bounded():
    real, synthetic = side(0, 4), side(1, 3)
    brighter = [2.5 * m for m in synthetic[0]], synthetic[1]
    name = "attention4"
    value = value_and_slope(name, real, synthetic)[0]
    np.testing.assert_allclose(value_and_slope(name, real, brighter)[0], value, rtol=1e-12)
    assert value - 0.3 * reference.mean_distance(real[1], synthetic[1]) <= 4 * (len(LAYERS) - 1)


def test_attention_of_nearly_dark_maps_is_over_the_floor():
    """|A|^2 underflows in float32 long before A does; such maps are divided by 1e-12."""
    for level in (4e-4, 1e-5, 0.0):
        found = attention_map(jnp.full((1, 4, 4, 4), level), 4)
        np.testing.assert_allclose(found, np.full((1, 16), 4 * level**4 / 1e-12), rtol=1e-3)


def test_discrepancies_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'gaussian'"):
        objectives.kernel_means("gausian")
    for power in (0, 1.5):
        with pytest.raises(ConfigError, match="power"):
            objectives.attention(power=power)
