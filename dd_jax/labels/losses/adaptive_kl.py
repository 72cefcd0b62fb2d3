"""Adaptive KL: both directions, weighed by how far head and tail of the teacher are apart.

The classes in descending order of p_t; the head are those whose cumulative probability is at most
mu, and the first in any case; the rest is the tail. With G the sum of |p_t - p_s| over either,

    G_h / (G_h + G_t) KL(p_t || p_s) + G_t / (G_h + G_t) KL(p_s || p_t),    G without derivative.

Where G_h + G_t = 0 both weigh a half, of divergences that are 0.

Differs from the official code:
  - Some ports apply the mask of the sorted teacher to unsorted classes. Here both networks'
    probabilities are gathered in the teacher's order.
  - Which side the class that crosses mu is on is from memory.

Source: Wu et al., Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large
Language Models, COLING 2025.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, probability
from dd_jax.labels.losses.softened import divergence, log_softened
from dd_jax.labels.losses.targets import require_logits


def adaptive_kl(
    logits: jax.Array, targets: jax.Array, *, head: float = 0.5, temperature: float = 1.0
) -> jax.Array:
    """KL both ways, weighed by head and tail, see the module.

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      head: mu, the probability that the head has at most.
      temperature: of both.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> adaptive_kl(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 2.0]])).round(6).tolist()
      [0.0]
    """
    require_logits(logits, targets)
    log_t, log_s = log_softened(targets, temperature), log_softened(logits, temperature)
    order = jnp.argsort(-log_t, axis=-1)
    p_t, p_s = (jnp.take_along_axis(jnp.exp(jax.lax.stop_gradient(log_p)), order, axis=-1)
                for log_p in (log_t, log_s))
    in_head = (jnp.cumsum(p_t, axis=-1) <= head) | (jnp.arange(p_t.shape[-1]) == 0)
    apart = jnp.abs(p_t - p_s)
    of_head, total = jnp.sum(apart * in_head, axis=-1), jnp.sum(apart, axis=-1)
    weight = jnp.where(total > 0, of_head / jnp.where(total > 0, total, 1.0), 0.5)
    return weight * divergence(log_t, log_s) + (1 - weight) * divergence(log_s, log_t)


ENTRIES = MappingProxyType({
    "adaptive_kl": Entry(
        adaptive_kl, "logits", options={"head": 0.5, "temperature": 1.0},
        source="Wu et al., Rethinking Kullback-Leibler Divergence in Knowledge Distillation for "
               "Large Language Models, COLING 2025",
        checks={"head": probability}),
})
