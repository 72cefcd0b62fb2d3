"""What losses are told: kinds of targets, what fits which, and checks of their shapes.

A loss that needs a teacher and the labels takes a `Taught`. Shapes and dtypes are checked where a
loss is traced, so before anything compiles.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, DataError


class Taught(NamedTuple):
    """A teacher's word and the labels of the same images.

    Attributes:
      logits: [B, K], the teacher's.
      labels: [B] integers, or [B, K] probabilities, as the loss says.
    """

    logits: jax.Array
    labels: jax.Array


# Every kind that an `Entry` may name and what it is; other names are those of NamedTuples.
KINDS = MappingProxyType({
    "probabilities": "labels [B, K], each row of sum 1",
    "free": "labels [B, K], any numbers",
    "classes": "class numbers [B]",
    "logits": "a teacher's logits [B, K]",
    "logits and classes": "Taught(a teacher's logits [B, K], class numbers [B])",
    "logits and probabilities": "Taught(a teacher's logits [B, K], labels [B, K] of sum 1)",
})
# What may be passed where a kind is asked for; beside itself.
FITS = MappingProxyType({
    "probabilities": ("one_hot",),
    "free": ("one_hot", "probabilities", "centred", "logits"),
    "logits and probabilities": ("logits and one_hot",),
})


def fits(wanted: str, found: str) -> bool:
    """Whether targets of one kind may be passed where another is asked for.

    Example:
      >>> fits("free", "logits"), fits("classes", "probabilities")
      (True, False)
    """
    return found == wanted or found in FITS.get(wanted, ())


def require_logits(logits: jax.Array, teacher: jax.Array, *, same: bool = True) -> None:
    """Refuses a teacher's logits, or labels, that do not belong to the student's [B, K].

    Args:
      logits: the student's.
      teacher: what they are compared with.
      same: whether the numbers of classes have to be equal.

    Raises:
      ConfigError: as said.
    """
    ours, theirs = jnp.shape(logits), jnp.shape(teacher)
    if len(ours) != 2 or len(theirs) != 2 or ours[:1 + same] != theirs[:1 + same]:
        raise ConfigError(f"the student's logits are {ours} and what it is told is {theirs}, "
                          f"expected {'equal shapes [B, K]' if same else '[B, K] and [B, L]'}",
                          fix="pass the same images and classes to both")


def require_classes(logits: jax.Array, classes: jax.Array) -> None:
    """Refuses labels that are no class numbers, one for each row, such as soft labels.

    Raises:
      ConfigError: as said.
    """
    classes = jnp.asarray(classes)
    if classes.shape != jnp.shape(logits)[:1] or not jnp.issubdtype(classes.dtype, jnp.integer):
        raise ConfigError(f"the labels are {classes.dtype} of shape {classes.shape}, and this loss "
                          f"takes class numbers, integers {jnp.shape(logits)[:1]}",
                          fix="pass labels.argmax(axis=-1), or a loss of soft labels such as 'kl'")


def require_labels(labels: np.ndarray, kind: str, *, classes: int) -> None:
    """Refuses labels on the host whose values are not of their kind.

    Args:
      labels: all labels that a training will be told.
      kind: "probabilities", "one_hot" or "classes"; others have no rule.
      classes: K.

    Raises:
      DataError: a negative or not finite probability, a row whose sum is not 1, a row that is not
        one-hot, a class number that is not below K.

    Example:
      >>> require_labels(np.array([[0.5, 0.4]]), "probabilities", classes=2)
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: row 0 of the labels is no distribution: its sum is 0.9; ...
    """
    labels = np.asarray(labels)
    if kind == "classes":
        wrong = (labels < 0) | (labels >= classes)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"row {row} of the labels is {labels[row]}, expected a class below "
                            f"{classes}", fix="number the classes from 0")
    elif kind in ("probabilities", "one_hot"):
        sums = labels.sum(axis=-1, dtype=np.float64)
        good = np.isfinite(labels).all(axis=-1) & (labels >= 0).all(axis=-1)
        good &= np.abs(sums - 1) < 1e-3  # half precision, as stores have them
        if not good.all():
            row = int(np.argmin(good))
            raise DataError(f"row {row} of the labels is no distribution: its sum is "
                            f"{sums[row]:.3g}", fix="normalise them, or pass a loss of free labels "
                            "such as 'squared_error'")
        if kind == "one_hot" and not (np.abs(labels.max(axis=-1) - 1) < 1e-3).all():
            row = int(np.argmin(labels.max(axis=-1)))
            raise DataError(f"row {row} of the labels is not one-hot: its largest is "
                            f"{labels[row].max():.3g}", fix="pass a loss of soft labels such as "
                            "'cross_entropy'")
