"""Class-relation KD: how images of new classes relate to classes that a teacher knows.

The teacher knows the first L classes of the student's K. With T' = tau T,

    r_t = softmax(z_t / T'),    r_s = softmax(z_s[:L] / T')
    g_i = sum_{k < L} softmax(z_s / T')_ik, over its mean in the batch
    loss_i = alpha T^2 g_i CE(r_t, r_s)

Unchanged when a number is added to a row of logits. The gate is 1 for L = K, and its derivative is
kept, as in the official code. The value has the teacher's entropy in it.

The batch is compared as a whole, rows of weight 0 included: weights change the mean over rows, not
the mean of the gates.

Source: Gu et al., Class-relation Knowledge Distillation for Novel Class Discovery, ICCV 2023.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero
from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import require_logits


def class_relation(
    logits: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 4.0,
    head_temperature: float = 1.0,
    scale: float = 0.1,
) -> jax.Array:
    """Gated cross-entropy over the classes that the teacher knows, see the module.

    Args:
      logits: [B, K]; a whole batch.
      targets: [B, L], logits of a teacher that knows the first L <= K classes.
      temperature: T.
      head_temperature: tau, of the network's own head; 1 for ordinary logits.
      scale: alpha.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, other numbers of rows, a teacher of more classes.

    Example:
      >>> class_relation(jnp.zeros((2, 3)), jnp.zeros((2, 2)), temperature=1.0).round(4).tolist()
      [0.069..., 0.069...]
    """
    require_logits(logits, targets, same=False)
    require_above_zero("head_temperature", head_temperature, why="logits are divided by it",
                       example=1.0)
    known = targets.shape[1]
    if known > logits.shape[1]:
        raise ConfigError(f"the teacher knows {known} classes and the student has "
                          f"{logits.shape[1]}, expected the student to have at least as many",
                          fix="pass the teacher's logits of the student's classes")
    over = temperature * head_temperature
    log_gate = jax.nn.logsumexp(log_softened(logits, over)[:, :known], axis=-1)
    gate = jax.nn.softmax(log_gate) * log_gate.shape[0]  # over its mean, from logarithms
    told = jnp.exp(log_softened(targets, over)) * log_softened(logits[:, :known], over)
    return -scale * temperature**2 * gate * jnp.sum(told, axis=-1)


ENTRIES = MappingProxyType({
    "class_relation": Entry(
        class_relation, "logits", whole=True,
        options={"temperature": 4.0, "head_temperature": 1.0, "scale": 0.1},
        source="Gu et al., Class-relation Knowledge Distillation for Novel Class Discovery, 2023",
        checks={"head_temperature": above_zero("logits are divided by it", 1.0),
                "scale": at_least_zero}),
})
