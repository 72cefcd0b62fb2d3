"""Gradient clipping at a multiple of the usual norm."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError, require_above_zero, require_at_least_zero


class CappedState(NamedTuple):
    """State of `capped_gradient`: [] float32, the moving average of norms; 0 before the first."""

    average: jax.Array


def capped_gradient(factor: float = 2.0, decay: float = 0.9) -> optax.GradientTransformation:
    """Scales a gradient g down to the norm factor * a, a the moving average of norms, its own too.

      a <- decay a + (1 - decay) ||g||,   g <- g min(1, factor a / ||g||)

    ||g|| is that before the cut, so a loss that has become steeper is followed. The first norm is
    the first average, so a factor of at least 1 lets that gradient pass.

    Args:
      factor: finite, above 0.
      decay: at least 0, below 1.

    Returns:
      An optax transformation with `CappedState`; the norm is over all leaves that it is given.

    Raises:
      ConfigError: a factor or a decay that cannot be.

    Example:
      >>> capped = capped_gradient(1.0, decay=0.5)
      >>> _, state = capped.update(jnp.array([1.0]), capped.init(jnp.zeros(1)))
      >>> updates, state = capped.update(jnp.array([8.0]), state)
      >>> updates.item(), state.average.item()
      (4.5, 4.5)

    Source: fengyzpku/Simple_Dataset_Distillation; Feng, Vedantam and Kempe, Embarrassingly Simple
    Dataset Distillation, ICLR 2024.
    """
    require_above_zero("factor", factor, why="no gradient would pass", example=2.0)
    require_at_least_zero("decay", decay, example=0.9)
    if decay >= 1:
        raise ConfigError(f"decay is {decay!r}, expected less than 1", fix="pass decay=0.9")

    def init(params):
        return CappedState(jnp.zeros((), jnp.float32))

    def update(updates, state, params=None):
        norm = optax.tree.norm(updates).astype(state.average.dtype)
        average = jnp.where(state.average == 0, norm, decay * state.average + (1 - decay) * norm)
        cap = factor * average
        scale = jnp.where(norm > cap, cap / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny), 1.0)
        return jax.tree.map(lambda u: u * scale.astype(u.dtype), updates), CappedState(average)

    return optax.GradientTransformation(init, update)
