"""The alpha-beta divergence of the student's distribution q from the teacher's p.

    D = -1 / (a b) sum_k [ p^a q^b - a / (a + b) p^(a+b) - b / (a + b) q^(a+b) ]

and its limits, of which (1, 0) is KL(p || q), (0, 1) is KL(q || p), and (0, 0) half the squared
distance of log-probabilities. Zero, without slope, where p = q; unchanged when a number is added to
a row of logits.

With r = log q - log p and E(c) = p^(a+b) (e^(c r) - 1) / c, of which the limit for c = 0 is
p^(a+b) r, one formula has them all, and only where both a and b are near 0 does it divide a small
difference by a small number:

    D = (1 / a) sum_k [ E(a + b) - E(b) ]

for a >= b, and the same with p and q, a and b exchanged for a < b.

Differs from the official code: a and b are at least 0, as the paper's are; the family goes on
below, where a probability that is 0 in float32 has an infinite power.

Source: Wang et al., ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge
Distillation via alpha-beta-Divergence, ICML 2025; Cichocki et al., Generalized Alpha-Beta
Divergences and Their Application to Robust Nonnegative Matrix Factorization, Entropy 2011.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import require_at_least_zero
from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import require_logits


def alpha_beta(
    logits: jax.Array,
    targets: jax.Array,
    *,
    alpha: float = 0.2,
    beta: float = 0.7,
    temperature: float = 1.0,
) -> jax.Array:
    """The alpha-beta divergence, see the module.

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      alpha, beta: a and b, at least 0; plain numbers.
      temperature: of both.

    Returns:
      [B].

    Raises:
      ConfigError: a number that cannot be, shapes that are not equal.

    Example:
      >>> far = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
      >>> alpha_beta(*far, alpha=1.0, beta=0.0).round(4).tolist()  # KL
      [0.46...]
    """
    require_logits(logits, targets)
    require_at_least_zero("alpha", alpha, example=0.2)
    require_at_least_zero("beta", beta, example=0.7)
    log_p, log_q = log_softened(targets, temperature), log_softened(logits, temperature)
    if alpha == beta == 0:
        return 0.5 * jnp.sum((log_q - log_p) ** 2, axis=-1)
    if alpha < beta:
        alpha, beta, log_p, log_q = beta, alpha, log_q, log_p
    both, ratio = alpha + beta, log_q - log_p
    apart = _growth(both * log_p, both, ratio) - _growth(both * log_p, beta, ratio)
    return jnp.sum(apart, axis=-1) / alpha


def _growth(v: jax.Array, c: float, ratio: jax.Array) -> jax.Array:
    """(e^(v + c ratio) - e^v) / c; its limit e^v ratio for c = 0."""
    if c == 0:
        return jnp.exp(v) * ratio
    # Only negative numbers reach an exponential, also in the branch that is not taken.
    up, down = jnp.where(ratio > 0, 0.0, ratio), jnp.where(ratio > 0, ratio, 0.0)
    return jnp.where(ratio > 0, -jnp.exp(v + c * down) * jnp.expm1(-c * down),
                     jnp.exp(v) * jnp.expm1(c * up)) / c


ENTRIES = MappingProxyType({
    "alpha_beta": Entry(
        alpha_beta, "logits", options={"alpha": 0.2, "beta": 0.7, "temperature": 1.0},
        source="Wang et al., ABKD: Pursuing a Proper Allocation of the Probability Mass in "
               "Knowledge Distillation via alpha-beta-Divergence, ICML 2025",
        checks={"alpha": at_least_zero, "beta": at_least_zero}),
})
