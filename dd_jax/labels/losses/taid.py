"""TAID: a teacher that moves from the student's own distribution to its own.

    p = softmax((1 - t) z_s + t z_t)  with z_s constant,    loss = -sum_k p_k log softmax(z_s)_k

Without slope for t = 0; cross-entropy to the teacher for t = 1. The slope is that of KL to p; the
value has the entropy of p, too, as in the paper.

t goes from `start` to `end` at least as fast as the steps, and faster while the loss falls. With L
the loss of a step and r = (L_before - L) / L_before,

    m <- beta m + (1 - beta) r
    t <- min(end, max(start + (end - start) progress, t + alpha sigmoid(m) (1 - t)))

which `advance` does to a `Pace`; the first step only remembers its loss. Whoever trains keeps the
`Pace`, and hands t to the loss with the teacher's logits.

Source: Shing et al., TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge
Transfer in Language Models, ICLR 2025.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.targets import require_logits


class Interpolated(NamedTuple):
    """What `taid` is told.

    Attributes:
      logits: [B, K], the teacher's.
      share: [B] float, t of each row, usually one for all.
    """

    logits: jax.Array
    share: jax.Array


class Pace(NamedTuple):
    """How far the teacher has come.

    Attributes:
      share: [] float, t.
      loss: [] float, L of the step before.
      momentum: [] float, m.
      steps: [] int32, losses seen.
    """

    share: jax.Array
    loss: jax.Array
    momentum: jax.Array
    steps: jax.Array


def taid(logits: jax.Array, targets: Interpolated) -> jax.Array:
    """Cross-entropy to the interpolated distribution, see the module.

    Args:
      logits: [B, K].
      targets: an `Interpolated`.

    Returns:
      [B].

    Raises:
      ConfigError: shapes that are not equal.

    Example:
      >>> told = Interpolated(jnp.array([[0.0, 99.0]]), jnp.array([1.0]))
      >>> taid(jnp.zeros((1, 2)), told).round(4).tolist()
      [0.69...]
    """
    require_logits(logits, targets.logits)
    share = targets.share[:, None]
    between = (1 - share) * jax.lax.stop_gradient(logits) + share * targets.logits
    return -jnp.sum(jax.nn.softmax(between) * jax.nn.log_softmax(logits), axis=-1)


def first_pace(start: float = 0.4) -> Pace:
    """The `Pace` before the first step.

    Example:
      >>> first_pace().share.round(1).tolist()
      0.4...
    """
    zero = jnp.zeros((), jnp.float32)
    return Pace(zero + start, zero, zero, jnp.zeros((), jnp.int32))


def scheduled(
    progress: jax.Array | float, *, start: float = 0.4, end: float = 1.0
) -> jax.Array:
    """t by steps alone: start + (end - start) progress.

    Example:
      >>> scheduled(0.5, start=0.5).tolist()
      0.75
    """
    return start + (end - start) * jnp.asarray(progress)


def advance(
    pace: Pace,
    loss: jax.Array,
    progress: jax.Array | float,
    *,
    start: float = 0.4,
    end: float = 1.0,
    alpha: float = 5e-4,
    beta: float = 0.99,
) -> Pace:
    """The `Pace` after a step, see the module; without derivative.

    Args:
      pace: before it.
      loss: [], the step's mean loss.
      progress: [], the share of all steps that are done.
      start, end: of t.
      alpha: what t gains at most in a step.
      beta: decay of the momentum.

    Returns:
      A `Pace`.

    Example:
      >>> advance(first_pace(), jnp.float32(2.0), 0.5).share.round(1).tolist()  # the first one
      0.4...
    """
    loss = jax.lax.stop_gradient(loss)
    fallen = (pace.loss - loss) / (pace.loss + 1e-15)
    momentum = beta * pace.momentum + (1 - beta) * fallen
    ahead = pace.share + alpha * jax.nn.sigmoid(momentum) * (1 - pace.share)
    share = jnp.minimum(end, jnp.maximum(scheduled(progress, start=start, end=end), ahead))
    first = pace.steps == 0
    return Pace(jnp.where(first, pace.share, share), loss,
                jnp.where(first, pace.momentum, momentum), pace.steps + 1)


ENTRIES = MappingProxyType({
    "taid": Entry(taid, "Interpolated",
                  source="Shing et al., TAID: Temporally Adaptive Interpolated Distillation, 2025"),
})
