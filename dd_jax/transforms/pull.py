"""A quadratic pull towards the parameters that a training started from."""

from __future__ import annotations

from typing import NamedTuple

import jax
import optax

from dd_jax.types import PyTree


class PullState(NamedTuple):
    """State of `pull_to_start`: the parameters at the start."""

    start: PyTree


def pull_to_start(strength: float) -> optax.GradientTransformation:
    """The gradient of `strength` times the squared distance from the start, added to another one.

    Args:
      strength: at least 0; 0 adds nothing and keeps nothing.

    Returns:
      An optax transformation with `PullState`.

    Example:
      >>> import jax.numpy as jnp
      >>> pull = pull_to_start(0.5)
      >>> pull.update(jnp.zeros(1), pull.init(jnp.ones(1)), jnp.full(1, 3.0))[0].tolist()
      [2.0]
    """
    if not strength:
        return optax.identity()

    def update(updates, state, params):
        pulled = jax.tree.map(lambda g, p, p0: g + 2 * strength * (p - p0), updates, params,
                              state.start)
        return pulled, state

    return optax.GradientTransformation(PullState, update)
