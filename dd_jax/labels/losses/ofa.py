"""OFA-KD's loss on logits: cross-entropy to a teacher whose true class is raised.

    -sum_k [(p_k + 1[k = y])^e - 1[k = y]] log q_k,    p = softmax(z_t / T), q = softmax(z_s / T)

For e > 1 the true class weighs (1 + p_y)^e - 1 and the others p_k^e; for e = 1 it is cross-entropy
to p. Unchanged when a number is added to a row of logits. Not zero where p = q, but where both are
sure of the true class.

Differs from the official code: log softmax instead of the logarithm of a softmax. The branches from
inner layers are networks and not here: give their logits to this loss.

Source: Hao et al., One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
Distillation, NeurIPS 2023.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero
from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import Taught, require_classes, require_logits


def ofa(
    logits: jax.Array, targets: Taught, *, exponent: float = 1.5, temperature: float = 1.0
) -> jax.Array:
    """Cross-entropy to the teacher with the true class raised, see the module.

    Args:
      logits: [B, K].
      targets: teacher's logits [B, K] and class numbers [B].
      exponent: e, at least 1; 1.5 for ImageNet, 1 in the example for CIFAR-100.
      temperature: of both.

    Returns:
      [B].

    Raises:
      ConfigError: an exponent or a temperature that cannot be, shapes that do not fit, soft labels.

    Example:
      >>> told = Taught(jnp.zeros((1, 2)), jnp.array([0]))
      >>> ofa(jnp.zeros((1, 2)), told, exponent=1.0).round(4).tolist()
      [0.69...]
    """
    _require_exponent("exponent", exponent)
    require_logits(logits, targets.logits)
    require_classes(logits, targets.labels)
    p = jnp.exp(log_softened(targets.logits, temperature))
    true = jax.nn.one_hot(targets.labels, logits.shape[-1], dtype=p.dtype)
    weights = (p + true) ** exponent - true
    return -jnp.sum(weights * log_softened(logits, temperature), axis=-1)


def _require_exponent(name: str, value: object) -> None:
    require_at_least_zero(name, value, example=1.5)
    if value < 1:
        raise ConfigError(f"{name} is {value!r}, expected at least 1: below, the true class weighs "
                          "less than the teacher says", fix=f"pass {name.split()[-1]}=1.5")


ENTRIES = MappingProxyType({
    "ofa": Entry(ofa, "logits and classes", options={"exponent": 1.5, "temperature": 1.0},
                 source="Hao et al., One-for-All: Bridge the Gap Between Heterogeneous "
                        "Architectures in Knowledge Distillation, NeurIPS 2023",
                 checks={"exponent": _require_exponent}),
})
