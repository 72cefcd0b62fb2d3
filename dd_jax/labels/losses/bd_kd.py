"""BD-KD: both directions of KL, the one that the student needs more with the larger weight.

    T^2 (a KL(p_t || p_s) + b KL(p_s || p_t))

By entropies, of the softened distributions and without derivative: where the student's is larger,
so that it is too flat, b = delta and a = 1; where the teacher's is, a = delta and b = 1; where they
are equal both are 1.

Differs from the official code, which was not found: values keep the teacher's entropy, so that the
loss is 0 where the distributions are equal; delta is 2 here, while a re-implementation has 3; the
online variant, where the teacher learns with the student, is two losses, `bd_kd` and
`reverse_kl`, each of which takes the other network's logits as constant.

Source: Amara et al., BD-KD: Balancing the Divergences for Online Knowledge Distillation, 2022.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import divergence, entropy, log_softened, squared
from dd_jax.labels.losses.targets import require_logits


def bd_kd(
    logits: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 4.0,
    delta: float = 2.0,
    rescale: bool = True,
) -> jax.Array:
    """T^2 (a KL(p_t || p_s) + b KL(p_s || p_t)), a and b by entropies, see the module.

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      temperature: T.
      delta: the larger of both weights, at least 0.
      rescale: whether T^2 is there.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> bd_kd(jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 2.0]])).round(6).tolist()
      [0.0]
    """
    require_logits(logits, targets)
    log_t, log_s = log_softened(targets, temperature), log_softened(logits, temperature)
    flatter = jax.lax.stop_gradient(entropy(log_s) - entropy(log_t))
    forward = jnp.where(flatter < 0, delta, 1.0)
    reverse = jnp.where(flatter > 0, delta, 1.0)
    apart = forward * divergence(log_t, log_s) + reverse * divergence(log_s, log_t)
    return squared(temperature, rescale) * apart


ENTRIES = MappingProxyType({
    "bd_kd": Entry(
        bd_kd, "logits", options={"temperature": 4.0, "delta": 2.0, "rescale": True},
        source="Amara et al., BD-KD: Balancing the Divergences for Online Knowledge Distillation, "
               "2022",
        checks={"delta": at_least_zero}),
})
