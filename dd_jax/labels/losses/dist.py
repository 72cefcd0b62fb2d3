"""DIST: correlations of probabilities in place of their equality.

With P_s, P_t [B, K] the softened probabilities of a batch and rho Pearson's correlation,

    beta T^2 (1 - rho(P_s[i], P_t[i])) + gamma T^2 (1 - mean_k rho(P_s[:, k], P_t[:, k]))

for row i: relations of the classes in an image, and of the images in a class. Zero, without slope,
where the probabilities are equal; unchanged when a number is added to a row of logits. What has no
spread, such as a flat row, has correlation 0 with everything.

The batch is compared as a whole, rows of weight 0 included: weights change the mean over rows, not
the correlations of classes.

Differs from the official code: the product of norms is at least 1e-8 instead of 1e-8 more, so that
equals correlate to 1 exactly.

Source: Huang et al., Knowledge Distillation from a Stronger Teacher, NeurIPS 2022.
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.softened import log_softened
from dd_jax.labels.losses.targets import require_logits


def dist(
    logits: jax.Array,
    targets: jax.Array,
    *,
    temperature: float = 4.0,
    beta: float = 2.0,
    gamma: float = 2.0,
) -> jax.Array:
    """Correlations within rows and within classes, see the module.

    Args:
      logits: [B, K]; a whole batch.
      targets: [B, K], the teacher's logits.
      temperature: T; 4 for CIFAR-100, 1 for ImageNet (the latter from memory).
      beta, gamma: of rows and of classes, at least 0.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> logits = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> bool(jnp.all(jnp.abs(dist(logits, logits)) < 1e-4))
      True
    """
    require_logits(logits, targets)
    ours = jnp.exp(log_softened(logits, temperature))
    theirs = jnp.exp(log_softened(targets, temperature))
    within_rows = 1 - _correlation(ours, theirs, axis=1)
    within_classes = 1 - jnp.mean(_correlation(ours, theirs, axis=0))
    return temperature**2 * (beta * within_rows + gamma * within_classes)


def _correlation(x: jax.Array, y: jax.Array, *, axis: int) -> jax.Array:
    x, y = (values - jnp.mean(values, axis=axis, keepdims=True) for values in (x, y))
    norms = _norm(x, axis) * _norm(y, axis)
    return jnp.sum(x * y, axis=axis) / jnp.maximum(norms, 1e-8)


def _norm(x: jax.Array, axis: int) -> jax.Array:
    """The Euclidean norm, whose slope at 0 is 0."""
    square = jnp.sum(x**2, axis=axis)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


ENTRIES = MappingProxyType({
    "dist": Entry(dist, "logits", whole=True,
                  options={"temperature": 4.0, "beta": 2.0, "gamma": 2.0},
                  source="Huang et al., Knowledge Distillation from a Stronger Teacher, 2022",
                  checks={"beta": at_least_zero, "gamma": at_least_zero}),
})
