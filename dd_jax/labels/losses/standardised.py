"""KL of logits that each image's own spread is taken off.

With mean(z) and sd(z) over the classes of a row, sd with K - 1 in the denominator and 1e-7 more,

    standardised  T^2 KL(softmax(Z_t / T) || softmax(Z_s / T)),    Z = (z - mean(z)) / sd(z)
    mixup_kd      g CE(y, z_s / sd(z_s)) + a KL(softmax(z_t / sd(z_t)) || softmax(z_s / sd(z_s)))

Both are unchanged when a number is added to a row of logits or (up to the 1e-7) when a row is
multiplied by a positive one. KL is zero, without slope, where Z_s = Z_t. Where the student's logits
are all equal the slope is of the order 1e7: not for networks that begin with a head of zeros.

In mixup_kd both networks see mixed images and the labels are mixed alike; `partial_mixup` says how
much, with most images left as they are.

Differs from the official code: that K - 1 and 1e-7 are in sd is from memory, for mixup_kd the 1e-7
is ours; `partial_mixup` leaves exactly the share alone, where drawing rows with replacement left
1 - e^-0.9 = 59 % in place of 90 %.

Source: Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024; Choi et al.,
Understanding the Role of Mixup in Knowledge Distillation: An Empirical Study, WACV 2023.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.errors import require_probability
from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import divergence, log_softened, squared
from dd_jax.labels.losses.targets import Taught, require_logits

TINY = 1e-7


def standardised(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 2.0, rescale: bool = True
) -> jax.Array:
    """T^2 KL of standardised logits, see the module.

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      temperature: T.
      rescale: whether T^2 is there.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> abs(standardised(jnp.array([[1.0, 0.0]]), jnp.array([[9.0, 2.0]])).item()) < 1e-5
      True
    """
    require_logits(logits, targets)
    log_t, log_s = (log_softened(_over_spread(z), temperature) for z in (targets, logits))
    return squared(temperature, rescale) * divergence(log_t, log_s)


def mixup_kd(
    logits: jax.Array, targets: Taught, *, labels: float = 0.1, teacher: float = 0.9
) -> jax.Array:
    """g CE + a KL, both at the temperature of each row's own spread, see the module.

    Args:
      logits: [B, K].
      targets: teacher's logits [B, K] and (mixed) labels [B, K].
      labels, teacher: g and a, at least 0.

    Returns:
      [B].

    Raises:
      ConfigError: shapes that are not equal.

    Example:
      >>> told = Taught(jnp.array([[9.0, 2.0]]), jnp.array([[1.0, 0.0]]))
      >>> abs(mixup_kd(jnp.array([[1.0, 0.0]]), told, labels=0.0).item()) < 1e-5
      True
    """
    require_logits(logits, targets.logits)
    require_logits(logits, targets.labels)
    log_t, log_s = (jax.nn.log_softmax(_over_spread(z)) for z in (targets.logits, logits))
    told = -jnp.sum(targets.labels * log_s, axis=-1)
    return labels * told + teacher * divergence(log_t, log_s)


def partial_mixup(key: jax.Array, count: int, *, share: float = 0.9) -> jax.Array:
    """How much of itself an image keeps: 1 for a share of the batch, uniform for the rest.

    Args:
      key: PRNG key.
      count: B.
      share: of images that are left alone, to the nearest whole number of them.

    Returns:
      [B] float32.

    Raises:
      ConfigError: a share that is no probability.

    Example:
      >>> int((partial_mixup(jax.random.key(0), 10) == 1).sum())
      9
    """
    require_probability("share", share)
    draw_key, row_key = jax.random.split(key)
    mixed = jax.random.permutation(row_key, count) >= round(share * count)
    return jnp.where(mixed, jax.random.uniform(draw_key, (count,)), 1.0)


def _over_spread(logits: jax.Array) -> jax.Array:
    """(z - mean) / sd, which is z / sd but for a number that softmax does not see."""
    gap = logits - jnp.mean(logits, axis=-1, keepdims=True)
    variance = jnp.sum(gap**2, axis=-1, keepdims=True) / max(logits.shape[-1] - 1, 1)
    spread = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
    return gap / (spread + TINY)


ENTRIES = MappingProxyType({
    "standardised": Entry(standardised, "logits", options={"temperature": 2.0, "rescale": True},
                          source="Sun et al., Logit Standardization in Knowledge Distillation"),
    "mixup_kd": Entry(
        mixup_kd, "logits and probabilities", options={"labels": 0.1, "teacher": 0.9},
        source="Choi et al., Understanding the Role of Mixup in Knowledge Distillation, 2023",
        checks={"labels": at_least_zero, "teacher": at_least_zero}),
})
