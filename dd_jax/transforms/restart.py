"""An optimizer that forgets at one step of the training."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.types import PyTree


class RestartState(NamedTuple):
    """State of `restarted_at`: [] int32, the steps so far, and the state of the optimizer."""

    count: jax.Array
    inner: PyTree


def restarted_at(
    optimizer: optax.GradientTransformation, step: int
) -> optax.GradientTransformation:
    """The optimizer that begins anew, without momentum, at the step of this number.

    Args:
      optimizer: any, whose `init` does not depend on the values of the parameters.
      step: from 0.

    Returns:
      An optax transformation with `RestartState`.

    Example:
      >>> momentum = restarted_at(optax.trace(1.0), 2)
      >>> state, moves = momentum.init(jnp.zeros(())), []
      >>> for _ in range(4):
      ...     move, state = momentum.update(jnp.ones(()), state)
      ...     moves.append(move.item())
      >>> moves
      [1.0, 2.0, 1.0, 2.0]
    """
    def init(params):
        return RestartState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates, state, params=None):
        fresh = optimizer.init(updates)
        inner = jax.tree.map(lambda new, old: jnp.where(state.count == step, new, old), fresh,
                             state.inner)
        updates, inner = optimizer.update(updates, inner, params)
        return updates, RestartState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)
