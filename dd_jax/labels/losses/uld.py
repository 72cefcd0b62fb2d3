"""Universal logit distillation: only the shapes of two distributions are compared.

Sorted in descending order, the shorter filled up with zeros, sum_k |p_s^(k) - p_t^(k)|: the
Wasserstein distance between the sorted masses. Which class has which mass is not seen, so it needs
the labels beside it (the total of the paper is cross-entropy + 1.5 of it); student and teacher may
have other classes, and other numbers of them.

Unchanged by an order of either's classes, and when a number is added to a row of logits. Zero where
the sorted masses are equal; the slope jumps there and is taken as 0.

Source: Boizard et al., Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss
for LLMs, TMLR 2025.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import require_logits


def uld(logits: jax.Array, targets: jax.Array, *, temperature: float = 1.0) -> jax.Array:
    """sum_k |p_s^(k) - p_t^(k)| of sorted probabilities, see the module.

    Args:
      logits: [B, K].
      targets: [B, L], the teacher's logits.
      temperature: of both; 1 in the paper.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, other numbers of rows.

    Example:
      >>> uld(jnp.array([[0.0, 3.0]]), jnp.array([[3.0, 0.0, -99.0]])).round(4).tolist()
      [0.0]
    """
    require_logits(logits, targets, same=False)
    longest = max(logits.shape[1], targets.shape[1])

    def masses(values):
        sorted_up = jnp.sort(jnp.exp(log_softened(values, temperature)), axis=-1)
        return jnp.pad(sorted_up[:, ::-1], ((0, 0), (0, longest - values.shape[1])))

    return jnp.sum(jnp.abs(masses(logits) - masses(targets)), axis=-1)


ENTRIES = MappingProxyType({
    "uld": Entry(uld, "logits", options={"temperature": 1.0},
                 source="Boizard et al., Towards Cross-Tokenizer Distillation: the Universal Logit "
                        "Distillation Loss for LLMs, TMLR 2025"),
})
