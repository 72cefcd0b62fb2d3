"""Gaussian initialisation and the first padding of the ConvNet of random features."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.errors import ConfigError
from dd_jax.types import DataSpec

GREY = DataSpec("t", (28, 28, 1), 10, tuple("abcdefghij"))


def gaussian(**options):
    return nets.convnet(GREY, norm="none", init_style="gaussian", **options)


def test_weights_have_variance_two_over_fan_in_and_biases_a_tenth():
    params = jax.jit(gaussian(width=128).init)(jax.random.key(0))["params"]
    for name, fan_in in (("conv0", 9), ("conv1", 9 * 128), ("head", 16 * 128)):
        kernel = np.asarray(params[name]["kernel"]).ravel()
        np.testing.assert_allclose(kernel.std(), (2 / fan_in) ** 0.5, rtol=0.06)
        # A normal distribution, not a uniform one: 4.6 % lie beyond two deviations.
        assert np.mean(np.abs(kernel) > 2 * kernel.std()) > 0.02
    biases = np.concatenate([np.asarray(params[f"conv{i}"]["bias"]) for i in range(3)])
    np.testing.assert_allclose(biases.std(), 0.1, rtol=0.15)


@pytest.mark.parametrize("padding,features", [(1, 9), (None, 16), (3, 16)])
def test_first_padding_decides_the_size_of_the_maps(padding, features):
    network = gaussian(width=8, first_padding=padding)
    out = jax.eval_shape(lambda k, x: network.apply(network.init(k), x), jax.random.key(0),
                         jnp.zeros((2, 28, 28, 1)))
    assert out.features.shape == (2, features * 8)


def test_bad_paddings_and_too_small_images_are_refused():
    with pytest.raises(ConfigError, match="first_padding is 0"):
        gaussian(first_padding=0)
    small = DataSpec("t", (7, 7, 1), 2, ("a", "b"))
    nets.convnet(small, depth=3)
    with pytest.raises(ConfigError, match="shrink"):
        nets.convnet(small, depth=3, first_padding=1)
