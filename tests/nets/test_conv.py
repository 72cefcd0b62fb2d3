"""The three formulations of the convolution are one function, derivatives included."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.nets.conv import conv3x3

SHAPES = [((2, 8, 8, 3), 5), ((1, 6, 4, 1), 2), ((3, 2, 2, 4), 4)]


def _inputs(shape, features):
    x = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, shape[-1], features))
    return x, kernel


@pytest.mark.parametrize("formulation", ["patches", "winograd"])
@pytest.mark.parametrize("shape,features", SHAPES)
def test_value_equals_native(formulation, shape, features):
    x, kernel = _inputs(shape, features)
    np.testing.assert_allclose(
        conv3x3(x, kernel, formulation=formulation),
        conv3x3(x, kernel, formulation="native"), rtol=1e-5, atol=2e-5,
    )


def test_value_equals_loops():
    x, kernel = _inputs((1, 4, 5, 2), 3)
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((1, 4, 5, 3))
    for i in range(4):
        for j in range(5):
            window = padded[0, i : i + 3, j : j + 3]
            expected[0, i, j] = np.einsum("deo,deof->f", window, np.asarray(kernel))
    np.testing.assert_allclose(conv3x3(x, kernel, formulation="patches"), expected, atol=1e-5)


@pytest.mark.parametrize("formulation", ["patches", "winograd"])
@pytest.mark.parametrize("shape,features", SHAPES)
def test_first_and_second_derivatives_equal_native(formulation, shape, features):
    x, kernel = _inputs(shape, features)

    def loss(x, kernel, formulation):
        return jnp.sum(jnp.tanh(conv3x3(x, kernel, formulation=formulation)))

    def gradient_match(x, kernel, formulation):
        """A function of a gradient, as gradient matching has it."""
        return jnp.sum(jax.grad(loss, 1)(x, kernel, formulation) ** 2)

    for fn in (loss, gradient_match):
        for argument in (0, 1):
            ours = jax.grad(fn, argument)(x, kernel, formulation)
            native = jax.grad(fn, argument)(x, kernel, "native")
            scale = float(jnp.max(jnp.abs(native)))
            np.testing.assert_allclose(ours / scale, native / scale, atol=5e-5)


@pytest.mark.parametrize("formulation", ["patches", "winograd"])
def test_forward_mode_and_vmap_over_kernels(formulation):
    x, kernel = _inputs((2, 4, 4, 2), 3)
    kernels = jnp.stack([kernel, 2 * kernel])
    many = jax.vmap(lambda k: conv3x3(x, k, formulation=formulation))(kernels)
    np.testing.assert_allclose(many[1], 2 * many[0], rtol=1e-4, atol=1e-5)
    tangent = jax.jvp(lambda k: conv3x3(x, k, formulation=formulation), (kernel,), (kernel,))[1]
    np.testing.assert_allclose(tangent, many[0], rtol=1e-4, atol=1e-5)


def test_odd_sizes_fall_back_and_names_are_checked():
    x, kernel = _inputs((1, 5, 7, 2), 3)
    np.testing.assert_allclose(
        conv3x3(x, kernel, formulation="winograd"), conv3x3(x, kernel, formulation="native"),
        atol=2e-5,
    )
    with pytest.raises(ConfigError, match="winograd"):
        conv3x3(x, kernel, formulation="winogrd")


def test_no_scatter_in_second_derivatives():
    x, kernel = _inputs((2, 4, 4, 2), 3)

    def match(x):
        inner = jax.grad(lambda k: jnp.sum(jnp.tanh(conv3x3(x, k, formulation="winograd"))))
        return jnp.sum(inner(kernel) ** 2)

    assert "scatter" not in str(jax.make_jaxpr(jax.grad(match))(x))
