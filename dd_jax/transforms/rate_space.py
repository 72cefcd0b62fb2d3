"""Optimizers of a learned learning rate, and of steps whose loss is too large to be trusted."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError

_LEAST = 0.5  # of the rate stays after one step, so that it never becomes negative


def in_rate_space(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer as it would act on a rate r where the parameter is z = log r.

    dL/dr = dL/dz / r, and a step of r by u is one of z by log(1 + u / r); a step that would leave
    less than half of the rate leaves half.

    Args:
      optimizer: any.

    Returns:
      An optax transformation for a tree of logarithms.

    Example:
      >>> moved = in_rate_space(optax.sgd(0.1))
      >>> log_rate = jnp.log(2.0)
      >>> updates, _ = moved.update(jnp.array(2.0), moved.init(log_rate), log_rate)
      >>> round(float(jnp.exp(log_rate + updates)), 4)
      1.9
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def rates(params):
        return jax.tree.map(jnp.exp, params)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ConfigError("in_rate_space got no parameters", fix="call update with params")
        updates = jax.tree.map(lambda g, r: g / r, updates, rates(params))
        updates, state = optimizer.update(updates, state, rates(params), **extra)
        moved = jax.tree.map(lambda u, r: jnp.log(jnp.maximum(1 + u / r, _LEAST)), updates,
                             rates(params))
        return moved, state

    return optax.GradientTransformationExtraArgs(lambda z: optimizer.init(rates(z)), update)


class SkippedState(NamedTuple):
    """State of `skipped_above`: the optimizer's, and [] int32, how many steps were skipped."""

    inner: optax.OptState
    skipped: jax.Array


def skipped_above(
    optimizer: optax.GradientTransformation, threshold: float
) -> optax.GradientTransformation:
    """The optimizer where the loss is at most `threshold`; above it nothing moves.

    Args:
      optimizer: any.
      threshold: of the loss, which the outer loop tells its optimizers.

    Returns:
      An optax transformation with `SkippedState`.

    Example:
      >>> careful = skipped_above(optax.sgd(1.0), 2.0)
      >>> updates, state = careful.update(jnp.ones(()), careful.init(jnp.ones(())),
      ...                                 value=jnp.array(3.0))
      >>> updates.item(), state.skipped.item()
      (0.0, 1)
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params):
        return SkippedState(optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(updates, state, params=None, *, value, **extra):
        moves = value <= threshold
        new, inner = optimizer.update(updates, state.inner, params, value=value, **extra)
        new = jax.tree.map(lambda u: jnp.where(moves, u, jnp.zeros_like(u)), new)
        inner = jax.tree.map(lambda a, b: jnp.where(moves, a, b), inner, state.inner)
        return new, SkippedState(inner, state.skipped + 1 - moves.astype(jnp.int32))

    return optax.GradientTransformationExtraArgs(init, update)
