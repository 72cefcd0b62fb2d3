"""Optimisers of pixels, and the range that keeps parameters in."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.distill.pixel_space import in_pixel_space, kept_between
from dd_jax.errors import ConfigError

STD, MEAN = np.float32([0.5, 0.02]), np.float32([0.1, 0.9])


def test_adam_in_pixel_space_is_adam_on_pixels():
    target = jnp.array([[0.3, 0.4]])
    x = jnp.zeros((1, 2))
    z = (x - MEAN) / STD
    plain = optax.adam(0.1, eps=0.1)  # an eps of this size shows a wrong scale of gradients
    wrapped = in_pixel_space(plain, jnp.asarray(STD))
    states = plain.init(x), wrapped.init(z)
    for _ in range(3):
        gradient = 2 * (x - target)
        updates, first = plain.update(gradient, states[0], x)
        moved, second = wrapped.update(gradient * STD, states[1], z)
        x, z, states = x + updates, z + moved, (first, second)
    np.testing.assert_allclose(z * STD + MEAN, x, rtol=1e-5)


def test_momentum_in_pixel_space_with_a_range_is_clipped_momentum_on_pixels():
    """The heavy ball v <- m v + g, x <- clip(x - rate v): the velocity does not feel the range."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.2, 0.8, (1, 3, 3, 2))
    z = jnp.asarray((x - MEAN) / STD, jnp.float32)
    low, high = (-MEAN / STD), ((1 - MEAN) / STD)
    optimizer = optax.chain(in_pixel_space(optax.sgd(0.2, momentum=0.5), jnp.asarray(STD)),
                            kept_between(jnp.asarray(low), jnp.asarray(high)))
    state, velocity, touched = optimizer.init(z), np.zeros_like(x), 0
    for _ in range(6):
        gradient = rng.normal(size=x.shape)
        velocity = 0.5 * velocity + gradient
        x = np.clip(x - 0.2 * velocity, 0.0, 1.0)
        touched += int(((x == 0) | (x == 1)).sum())
        updates, state = optimizer.update(jnp.asarray(gradient * STD, jnp.float32), state, z)
        z = z + updates
        np.testing.assert_allclose(z * STD + MEAN, x, atol=2e-6)
    assert touched > 5  # or the range was not tested


def test_a_step_inside_the_range_is_left_alone():
    kept = kept_between(-1.0, 1.0)
    params, step = {"a": jnp.array([0.0, 0.5])}, {"a": jnp.array([0.25, -0.5])}
    updates, _ = kept.update(step, kept.init(params), params)
    np.testing.assert_array_equal(updates["a"], step["a"])


def test_the_range_needs_the_parameters():
    kept = kept_between(0.0, 1.0)
    with pytest.raises(ConfigError, match="params"):
        kept.update(jnp.ones(2), kept.init(jnp.ones(2)))
