"""The losses of Dual-Head KD: every logit is a probability of its own.

With s, t the student's and the teacher's logits and Bern(q) a coin,

    binary_kl       T^2 sum_k KL(Bern(sigmoid(t / T)) || Bern(sigmoid(s / T)))
    binary_kl_norm  T^2 sum_k KL(Bern(1/2) || Bern(sigmoid((s - t) / T)))
                    = T^2 sum_k log cosh((s - t) / (2 T))

Zero, without slope, where the logits are equal; changed when a number is added to a row, since they
match the logits themselves. For T -> infinity binary_kl_norm goes to sum_k (s - t)^2 / 8.

They are meant for the logits of a second head, whose network is not here.

Differs from the official code: the stable forms need no clipping of probabilities.

Source: Yang et al., Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an
Auxiliary Head, KDD 2025.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import require_above_zero
from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.targets import require_logits


def binary_kl(logits: jax.Array, targets: jax.Array, *, temperature: float = 2.0) -> jax.Array:
    """T^2 sum_k KL(Bern(sigmoid(t / T)) || Bern(sigmoid(s / T))).

    Args:
      logits: [B, K], s.
      targets: [B, K], t.
      temperature: T.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> binary_kl(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])).tolist()
      [0.0]
    """
    s, t = _over(logits, targets, temperature)
    yes = jax.nn.log_sigmoid(t) - jax.nn.log_sigmoid(s)
    no = jax.nn.log_sigmoid(-t) - jax.nn.log_sigmoid(-s)
    apart = jax.nn.sigmoid(t) * yes + jax.nn.sigmoid(-t) * no
    return temperature**2 * jnp.sum(apart, axis=-1)


def binary_kl_norm(logits: jax.Array, targets: jax.Array, *, temperature: float = 2.0) -> jax.Array:
    """T^2 sum_k log cosh((s - t) / (2 T)); the rest as for `binary_kl`.

    Example:
      >>> abs(binary_kl_norm(jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])).item()) < 1e-5
      True
    """
    s, t = _over(logits, targets, temperature)
    half = (s - t) / 2
    return temperature**2 * jnp.sum(jnp.logaddexp(half, -half) - math.log(2.0), axis=-1)


def _over(logits, targets, temperature) -> tuple[jax.Array, jax.Array]:
    require_logits(logits, targets)
    require_above_zero("temperature", temperature, why="logits are divided by it", example=2.0)
    return logits / temperature, targets / temperature


_SOURCE = "Yang et al., Dual-Head Knowledge Distillation, KDD 2025"
ENTRIES = MappingProxyType({
    "binary_kl": Entry(binary_kl, "logits", options={"temperature": 2.0}, source=_SOURCE),
    "binary_kl_norm": Entry(binary_kl_norm, "logits", options={"temperature": 2.0},
                            source=_SOURCE),
})
