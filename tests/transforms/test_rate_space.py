"""Rates that are stored as logarithms move as rates; steps of a large loss do not count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.errors import ConfigError
from dd_jax.transforms.rate_space import in_rate_space, skipped_above


def test_momentum_on_the_logarithm_is_momentum_on_the_rate():
    """v <- 0.5 v + dL/dr, r <- r - 0.1 v, with L = sum (r - 2)^2 sin r."""
    def slope(r):
        return 2 * (r - 2) * np.sin(r) + (r - 2) ** 2 * np.cos(r)

    with jax.enable_x64(True):
        optimizer = in_rate_space(optax.sgd(0.1, momentum=0.5))
        rate = np.array([0.7, 1.5, 2.2])
        log_rate = jnp.log(jnp.asarray(rate))
        state, velocity = optimizer.init(log_rate), 0.0
        for _ in range(5):
            r = jnp.exp(log_rate)
            updates, state = optimizer.update(slope(r) * r, state, log_rate)
            log_rate = optax.apply_updates(log_rate, updates)
            velocity = 0.5 * velocity + slope(rate)
            rate = rate - 0.1 * velocity
            np.testing.assert_allclose(jnp.exp(log_rate), rate, rtol=1e-12)


def test_a_rate_falls_to_a_half_at_most_and_grows_freely():
    optimizer = in_rate_space(optax.sgd(1.0))
    log_rate = jnp.log(jnp.float32([0.1, 0.1, 0.1]))
    state = optimizer.init(log_rate)
    slopes = np.float32([1e8, -1e3, 0.06])  # far below zero, far up, to 0.04
    updates, _ = optimizer.update(slopes * np.float32(0.1), state, log_rate)
    np.testing.assert_allclose(jnp.exp(log_rate + updates), [0.05, 1000.1, 0.05], rtol=1e-5)
    for _ in range(40):
        updates, state = optimizer.update(jnp.full(3, 1e6) * jnp.exp(log_rate), state, log_rate)
        log_rate = log_rate + updates
    assert np.all(np.exp(log_rate) > 0)
    with pytest.raises(ConfigError, match="params"):
        optimizer.update(slopes, state)


def test_a_large_loss_moves_nothing_and_is_counted():
    """As if the step had not been: the momentum is that of the others."""
    careful, plain = skipped_above(optax.sgd(0.1, momentum=0.9), 1.0), optax.sgd(0.1, momentum=0.9)
    params = jnp.array([1.0, -2.0])
    state, plain_state = careful.init(params), plain.init(params)
    for value in (0.5, 1.5, 1.0, jnp.inf, jnp.nan, 0.2):  # at the threshold it moves
        gradient = params * value
        updates, after = careful.update(gradient, state, params, value=jnp.asarray(value))
        if value <= 1.0:
            wanted, plain_state = plain.update(gradient, plain_state, params)
            np.testing.assert_allclose(updates, wanted, rtol=1e-6)
        else:
            np.testing.assert_array_equal(updates, np.zeros(2))
            jax.tree.map(np.testing.assert_array_equal, after.inner, state.inner)
        params, state = params + updates, after
    assert int(state.skipped) == 3


def test_the_loss_reaches_the_optimizer_inside():
    """A rate that waits for a plateau, of a group among others, in rate space."""
    inside = optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1, factor=0.5))
    optimizer = optax.partition({"rate": skipped_above(in_rate_space(inside), 3.0),
                                 "constant": optax.set_to_zero()}, {"r": "rate", "x": "constant"})
    params = {"r": jnp.log(jnp.float32(10.0)), "x": jnp.ones(2)}
    state = optimizer.init(params)
    moves = []
    for _ in range(4):
        gradient = {"r": jnp.exp(params["r"]), "x": jnp.ones(2)}  # dL/dr = 1
        updates, state = optimizer.update(gradient, state, params, value=jnp.float32(2.0))
        before, params = jnp.exp(params["r"]), optax.apply_updates(params, updates)
        moves.append(float(before - jnp.exp(params["r"])))
        np.testing.assert_array_equal(updates["x"], np.zeros(2))
    assert moves[0] == pytest.approx(1.0, rel=1e-4) and moves[-1] < 0.6
