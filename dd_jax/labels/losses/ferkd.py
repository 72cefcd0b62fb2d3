"""FerKD: soft labels where they are reliable, smoothed hard ones where they are not.

With c = max_k p_k, the teacher's confidence in a view,

    c < low            the view does not count
    low <= c < middle  (1 - eps) of the true class, eps / (K - 1) of each other
    middle <= c        p, the teacher's soft label; does not count above `high`, if that is below 1

and the loss is cross-entropy to that, 0 for a view that does not count. A mean over a batch still
divides by all its rows.

The thresholds and eps were not published: those here are ours, for ten classes. A confidence is
never below 1 / K, so that thresholds have to follow the number of classes.

Source: Shen, FerKD: Surgical Label Adaptation for Efficient Distillation, ICCV 2023.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_probability
from dd_jax.labels.losses.plain import cross_entropy
from dd_jax.labels.losses.record import Entry, probability
from dd_jax.labels.losses.targets import require_classes, require_logits


class Judged(NamedTuple):
    """What `ferkd` is told.

    Attributes:
      probabilities: [B, K], the teacher's.
      classes: [B] integers, the true ones.
    """

    probabilities: jax.Array
    classes: jax.Array


def calibrate(
    probabilities: jax.Array,
    classes: jax.Array,
    *,
    low: float = 0.15,
    middle: float = 0.3,
    high: float = 1.0,
    smoothing: float = 0.1,
) -> tuple[jax.Array, jax.Array]:
    """Replaces soft labels that are not reliable, see the module.

    Args:
      probabilities: [B, K], the teacher's.
      classes: [B] integers.
      low, middle, high: thresholds of the confidence, low <= middle <= high.
      smoothing: eps.

    Returns:
      (labels [B, K], whether each counts [B] bool).

    Raises:
      ConfigError: numbers that are no probabilities, or not in this order; soft labels for classes.

    Example:
      >>> unsure, classes = jnp.array([[0.26, 0.25, 0.25, 0.24]]), jnp.array([1])
      >>> labels, counts = calibrate(unsure, classes, smoothing=0.375)
      >>> labels.tolist(), counts.tolist()
      ([[0.125, 0.625, 0.125, 0.125]], [True])
    """
    for name, value in dict(low=low, middle=middle, high=high, smoothing=smoothing).items():
        require_probability(name, value)
    if not low <= middle <= high:
        raise ConfigError(f"low is {low}, middle {middle} and high {high}, expected them in order",
                          fix="pass low <= middle <= high")
    require_classes(probabilities, classes)
    k = probabilities.shape[-1]
    true = jax.nn.one_hot(classes, k, dtype=probabilities.dtype)
    smoothed = (1 - smoothing) * true + smoothing / max(k - 1, 1) * (1 - true)
    confidence = jnp.max(probabilities, axis=-1)
    labels = jnp.where((confidence < middle)[:, None], smoothed, probabilities)
    return labels, (confidence >= low) & (confidence <= high)


def ferkd(
    logits: jax.Array,
    targets: Judged,
    *,
    low: float = 0.15,
    middle: float = 0.3,
    high: float = 1.0,
    smoothing: float = 0.1,
) -> jax.Array:
    """Cross-entropy to calibrated labels, 0 for a view that does not count, see the module.

    Args:
      logits: [B, K].
      targets: a `Judged`.
      low, middle, high, smoothing: as for `calibrate`.

    Returns:
      [B].

    Raises:
      ConfigError: as `calibrate`; shapes that are not equal.

    Example:
      >>> told = Judged(jnp.array([[0.9, 0.1]]), jnp.array([0]))
      >>> ferkd(jnp.zeros((1, 2)), told).round(4).tolist()
      [0.69...]
    """
    require_logits(logits, targets.probabilities)
    labels, counts = calibrate(targets.probabilities, targets.classes, low=low, middle=middle,
                               high=high, smoothing=smoothing)
    return jnp.where(counts, cross_entropy(logits, labels), 0.0)


ENTRIES = MappingProxyType({
    "ferkd": Entry(
        ferkd, "Judged", options={"low": 0.15, "middle": 0.3, "high": 1.0, "smoothing": 0.1},
        source="Shen, FerKD: Surgical Label Adaptation for Efficient Distillation, ICCV 2023",
        checks=dict.fromkeys(("low", "middle", "high", "smoothing"), probability)),
})
