"""LumiNet: KL of logits that are standardised over the batch, class by class.

    n(z)_ic = (z_ic - mean_i z_ic) / sqrt(var_i z_ic + 1e-5)        biased variance
    loss = s^2 KL(softmax(n(z_t) / T) || softmax(n(z_s) / T))       s^2, not T^2

Zero, without slope, where the standardised logits are equal: unchanged when a number is added to
a class in all rows, but not when one is added to a row. The derivative goes through the student's
means and variances.

The batch is compared as a whole, rows of weight 0 included: weights change the mean over rows, not
the statistics. Sets of an image or two per class, or batches sorted by class, have no statistics
worth the name: batches of several K images of all classes are what it was made for. One row alone
is all zeros, and so has no slope.

Source: Hossain et al., LumiNet: The Bright Side of Perceptual Knowledge Distillation, 2023.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import divergence, log_softened
from dd_jax.labels.losses.targets import require_logits


def luminet(
    logits: jax.Array, targets: jax.Array, *, temperature: float = 4.0, scale: float = 33.0
) -> jax.Array:
    """KL of logits that are standardised over the batch, see the module.

    Args:
      logits: [B, K]; a whole batch.
      targets: [B, K], the teacher's logits.
      temperature: T; with the default scale as for CIFAR-100.
      scale: s.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> logits = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> luminet(logits + jnp.array([5.0, 0.0]), logits).round(3).tolist()
      [0.0, 0.0]
    """
    require_logits(logits, targets)
    log_t, log_s = (log_softened(_standardised(z), temperature) for z in (targets, logits))
    return scale**2 * divergence(log_t, log_s)


def _standardised(logits: jax.Array) -> jax.Array:
    variance = jnp.var(logits, axis=0)
    return (logits - jnp.mean(logits, axis=0)) * jax.lax.rsqrt(variance + 1e-5)


ENTRIES = MappingProxyType({
    "luminet": Entry(
        luminet, "logits", whole=True, options={"temperature": 4.0, "scale": 33.0},
        source="Hossain et al., LumiNet: The Bright Side of Perceptual Knowledge Distillation, "
               "2023",
        checks={"scale": at_least_zero}),
})
