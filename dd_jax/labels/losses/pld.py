"""PLD: the teacher's order of classes, with the true one first, as a choice made class by class.

With pi_1 = y, then the others in descending order of the teacher's logits, and weights
w_k = softmax(z_t / T)[pi_k],

    sum_k w_k (logsumexp_{l >= k} z_s[pi_l] - z_s[pi_k])

It takes the place of cross-entropy and KD together. Convex in z_s, unchanged when a number is added
to a row of logits; cross-entropy where w = (1, 0, ..., 0), ListMLE where w is uniform. Equal logits
of a teacher are taken in the order of their numbers. With few classes and a sure teacher it is
cross-entropy.

Source: Bassam et al., PLD: A Choice-Theoretic List-Wise Knowledge Distillation, 2025.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import Taught, require_classes, require_logits


def pld(logits: jax.Array, targets: Taught, *, temperature: float = 1.0) -> jax.Array:
    """The weighted choices of the teacher's order, see the module.

    Args:
      logits: [B, K].
      targets: teacher's logits [B, K] and class numbers [B].
      temperature: T of the teacher's weights; the student has none.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that do not fit, soft labels.

    Example:
      >>> sure = Taught(jnp.array([[99.0, 0.0, 0.0]]), jnp.array([0]))
      >>> pld(jnp.zeros((1, 3)), sure).round(2).tolist()  # cross-entropy
      [1.1...]
    """
    require_logits(logits, targets.logits)
    require_classes(logits, targets.labels)
    true = jnp.arange(logits.shape[-1]) == targets.labels[:, None]
    order = jnp.argsort(-jnp.where(true, jnp.inf, targets.logits), axis=-1)
    weights = jnp.exp(log_softened(targets.logits, temperature))
    scores, weights = (jnp.take_along_axis(x, order, axis=-1) for x in (logits, weights))
    left = jax.lax.cumlogsumexp(scores, axis=1, reverse=True)
    return jnp.sum(weights * (left - scores), axis=-1)


ENTRIES = MappingProxyType({
    "pld": Entry(
        pld, "logits and classes", options={"temperature": 1.0},
        source="Bassam et al., PLD: A Choice-Theoretic List-Wise Knowledge Distillation, 2025"),
})
