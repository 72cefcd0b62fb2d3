"""Gradients of the analytic kernels: central differences, duplicates and blank images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.kernels import architectures as nets
from dd_jax.kernels.layers import average_pool, conv, flatten, global_average_pool, relu
from dd_jax.kernels.program import nngp_and_ntk
from dd_jax.kernels.relu import ANGLE, BULGE, rectify, scale_of

PROGRAMS = {
    "fc2": (nets.fully_connected(2), (3, 3, 1)),
    "band-odd": ([conv(), relu(), conv(), relu(), average_pool(), conv(), relu(), flatten()],
                 (5, 4, 2)),
    "all-pairs": ([conv(), relu(), average_pool(), conv(), relu(), average_pool(),
                   global_average_pool()], (6, 4, 1)),
}  # fmt: skip


def _loss(layers):
    weights = np.random.default_rng(0).normal(size=(4, 6))

    def loss(x, y):
        parts = nngp_and_ntk(layers, x), nngp_and_ntk(layers, x, y)
        full = jnp.concatenate([jnp.sin(k + theta) for k, theta in parts], 1)
        return (weights * full).sum()

    return loss


@pytest.mark.parametrize("case", PROGRAMS)
def test_gradients_equal_central_differences_and_stay_finite(case):
    layers, shape = PROGRAMS[case]
    random = np.random.default_rng(1)
    x, y = random.normal(size=(4, *shape)), random.normal(size=(2, *shape))
    direction = random.normal(size=x.shape), random.normal(size=y.shape)
    with jax.enable_x64(True):
        both = jax.jit(jax.value_and_grad(_loss(layers), argnums=(0, 1)))
        slope = sum((d * g).sum() for d, g in zip(direction, both(x, y)[1]))
        step = 1e-6
        ends = [both(x + s * direction[0], y + s * direction[1])[0] for s in (step, -step)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-6)
        x[1], x[2], x[3], y[0] = x[0], 0.0, 0.5, x[0]
        value, gradients = both(x, y)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


def test_float32_gradient_is_close_and_finite_at_collinear_patches():
    layers, x = nets.convolutional(2), np.zeros((4, 6, 6, 1), np.float32)
    x[:3, 1:4, 2:5] = np.random.default_rng(0).normal(size=(3, 3, 3, 1))
    gradient = jax.jit(jax.grad(lambda x: jnp.sin(nngp_and_ntk(layers, x)[1]).sum()))
    small = np.asarray(gradient(x))
    with jax.enable_x64(True):
        exact = np.asarray(gradient(x.astype(np.float64)))
    assert np.isfinite(small).all() and np.isfinite(exact).all()
    np.testing.assert_allclose(small, exact, atol=2e-3 * np.abs(exact).max())


def test_without_biases_blank_images_are_harmless():
    layers = nets.convnet(1, b_std=0.0)
    x = np.zeros((3, 4, 4, 1), np.float32)
    x[2, 1, 1] = 1.0
    value, gradient = jax.jit(jax.value_and_grad(lambda x: nngp_and_ntk(layers, x)[1].sum()))(x)
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_polynomials_have_the_stated_error():
    z = np.linspace(0, 1, 100_001)
    angle = np.arccos(z)
    got = np.sqrt(1 - z) * np.polyval(ANGLE[::-1], z)
    assert np.abs(got - angle / (2 * np.pi)).max() < 1.5e-8
    got = (1 - z) ** 1.5 * np.polyval(BULGE[::-1], z)
    want = (np.sqrt(1 - z * z) - z * angle) / (2 * np.pi)
    assert np.abs(got - want).max() < 4.1e-9


def test_rectifier_of_float32_over_the_whole_range():
    """From opposite to equal directions; near both ends theta itself is ill-conditioned."""
    cosine = np.linspace(-1, 1, 2001)
    one = np.full_like(cosine, 2.0)

    def step(k):
        scale = scale_of(jnp.asarray(one, k.dtype))
        return rectify(k, jnp.ones_like(k), scale, scale)

    new, kdot = step(jnp.asarray(2 * cosine, jnp.float32))
    angle = np.arccos(cosine)
    np.testing.assert_allclose(kdot, (np.pi - angle) / (2 * np.pi), atol=2e-7 + 1e-6)
    want = 2 * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
    np.testing.assert_allclose(new, want, atol=5e-7)
