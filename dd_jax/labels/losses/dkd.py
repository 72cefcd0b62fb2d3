"""Decoupled KD: the true class against the rest, and the rest among themselves.

With p_y the softened probability of the true class and r the distribution of the other classes
alone, r_k = p_k / (1 - p_y),

    T^2 (alpha KL((p_y, 1 - p_y)_t || (p_y, 1 - p_y)_s) + beta KL(r_t || r_s))

Zero, without slope, where the distributions are equal; unchanged when a number is added to a row of
logits. alpha = 1 and beta = 1 - p_y of the teacher would be KL. With two classes the second term
is 0.

Source: Zhao et al., Decoupled Knowledge Distillation, CVPR 2022.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import Taught, require_classes, require_logits


def dkd(
    logits: jax.Array,
    targets: Taught,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> jax.Array:
    """T^2 (alpha, true against rest + beta, rest among themselves), see the module.

    Args:
      logits: [B, K].
      targets: teacher's logits [B, K] and class numbers [B].
      temperature: T.
      alpha, beta: at least 0.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that do not fit, soft labels.

    Example:
      >>> told = Taught(jnp.array([[3.0, 2.0]]), jnp.array([0]))
      >>> dkd(jnp.array([[1.0, 0.0]]), told).round(5).tolist()
      [0.0]
    """
    require_logits(logits, targets.logits)
    require_classes(logits, targets.labels)
    true = jnp.arange(logits.shape[-1]) == targets.labels[:, None]

    def parted(values):
        """log p_y [B], log(1 - p_y) [B], log r [B, K] with 0 for the true class."""
        log_p = log_softened(values, temperature)
        rest = jax.nn.logsumexp(jnp.where(true, -jnp.inf, log_p), axis=-1)
        return (jnp.sum(jnp.where(true, log_p, 0.0), axis=-1), rest,
                jnp.where(true, 0.0, log_p - rest[:, None]))

    (yes_t, no_t, among_t), (yes_s, no_s, among_s) = parted(targets.logits), parted(logits)
    against = jnp.exp(yes_t) * (yes_t - yes_s) + jnp.exp(no_t) * (no_t - no_s)
    among = jnp.sum(jnp.exp(among_t) * (among_t - among_s), axis=-1)
    return temperature**2 * (alpha * against + beta * among)


ENTRIES = MappingProxyType({
    "dkd": Entry(dkd, "logits and classes",
                 options={"temperature": 4.0, "alpha": 1.0, "beta": 8.0},
                 source="Zhao et al., Decoupled Knowledge Distillation, CVPR 2022",
                 checks={"alpha": at_least_zero, "beta": at_least_zero}),
})
