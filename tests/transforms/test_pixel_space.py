"""Optimisers of pixels, and the range that keeps parameters in."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.data import Normaliser, normalise
from dd_jax.distill import distillation
from dd_jax.errors import ConfigError
from dd_jax.transforms.pixel_space import in_pixel_space, kept_between, within_range

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


def test_adamw_in_pixel_space_decays_pixels_towards_black():
    """The decay of z towards 0 would be one towards grey; the mean makes it that of pixels."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.2, 0.8, (2, 3, 3, 2))
    start = x
    z = jnp.asarray((x - MEAN) / STD, jnp.float32)
    rate, b1, b2, eps, decay = 0.01, 0.9, 0.999, 1e-3, 0.5
    optimizer = in_pixel_space(optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=decay),
                               jnp.asarray(STD), jnp.asarray(MEAN))
    state, first, second = optimizer.init(z), 0.0, 0.0
    for t in range(1, 7):
        gradient = rng.normal(size=x.shape)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        direction = (first / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
        x = x - rate * (direction + decay * x)
        updates, state = optimizer.update(jnp.asarray(gradient * STD, jnp.float32), state, z)
        z = z + updates
        np.testing.assert_allclose(z * STD + MEAN, x, atol=3e-6)
    assert np.abs(x - start).max() > 0.02


def test_within_range_clips_pixels_whatever_the_optimiser():
    normaliser = Normaliser(mean=jnp.asarray(MEAN), std=jnp.asarray(STD))
    rng = np.random.default_rng(2)
    x = rng.uniform(0.0, 1.0, (2, 3, 3, 2))
    z = normalise(normaliser, jnp.asarray(x, jnp.float32))
    # The velocity goes on beyond the range, as that of an optimiser followed by a clip does.
    optimizer = within_range(optax.chain(optax.add_decayed_weights(0.1),
                                         optax.sgd(0.3, momentum=0.5)), normaliser)
    state, velocity = optimizer.init(z), 0.0
    for _ in range(5):
        gradient = rng.normal(size=x.shape)
        velocity = 0.5 * velocity + gradient + 0.1 * x
        x = np.clip(x - 0.3 * velocity, 0.0, 1.0)
        updates, state = optimizer.update(jnp.asarray(gradient * STD, jnp.float32), state, z)
        z = optax.apply_updates(z, updates)
        found = np.asarray(z) * STD + MEAN
        np.testing.assert_allclose(found, x, atol=3e-6)
    edge = ((x == 0) | (x == 1)).mean()
    assert 0.1 < edge < 0.9


def recipe_of_value(base, value, optimizer):
    """The recipe with a loss of slope 1 everywhere and the given value, of images and step."""

    def loss(synthetic, state, batch, key):
        total = jnp.sum(synthetic.images)
        return total - jax.lax.stop_gradient(total) + value(jax.lax.stop_gradient(total)), {}

    objective = base.objective._replace(loss=loss)
    return dataclasses.replace(base, objective=objective, optimizer=optimizer)


@pytest.mark.parametrize("kept", [False, True], ids=["plain", "within range"])
def test_a_rate_that_waits_for_a_plateau_falls_during_a_distillation(kept, tiny_recipe, toy):
    base = tiny_recipe("dm")
    optimizer = optax.chain(optax.sgd(1e-3),
                            optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=1e-6))
    if kept:
        optimizer = within_range(optimizer, base.normaliser)
    moves = {}
    for name, value in (("constant", lambda total: 1.0 + 0 * total),
                        ("falling", lambda total: total)):
        d = distillation(recipe_of_value(base, value, optimizer))
        state = jax.jit(d.init)(jax.random.key(0), toy)
        # Grey images, so that no step meets the range.
        grey = {**state.params, "images": jnp.zeros_like(state.params["images"])}
        state = state._replace(params=grey)
        _, metrics, done = jax.jit(d.run, static_argnames="length")(state, toy, 7, length=7)
        assert int(done) == 7
        moves[name] = np.asarray(metrics["update_norm"])
    np.testing.assert_allclose(moves["falling"], moves["falling"][0], rtol=1e-3)
    np.testing.assert_allclose(moves["constant"][0], moves["falling"][0], rtol=1e-5)
    ratios = moves["constant"] / moves["constant"][0]
    # The first loss is the best so far; two that are no better, and the rate is halved.
    np.testing.assert_allclose(ratios, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125], rtol=1e-3)
