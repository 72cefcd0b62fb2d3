"""What labels mean, and how class indices become targets of that kind."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown

# "classes" are class numbers [M], all others are [M, K]. "representations" are a teacher's outputs
# of any length, not one number for each class.
LABEL_KINDS = ("classes", "one_hot", "centred", "probabilities", "logits", "representations")


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the labels of a set mean.

    Attributes:
      kind: one of `LABEL_KINDS`.
      scale: what centred labels were multiplied by, above 0.
    """

    kind: str = "one_hot"
    scale: float = 1.0

    def __post_init__(self):
        if self.kind not in LABEL_KINDS:
            raise unknown("label kind", self.kind, LABEL_KINDS)
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"label scale is {self.scale!r}, expected a number above 0",
                              fix="pass scale=1.0")


def targets(labels: jax.Array, num_classes: int, *, kind: str, scale: float = 1.0) -> jax.Array:
    """Class indices as targets: one-hot, or centred one-hot e_c - 1/K, times `scale`.

    Args:
      labels: [...] int32.
      num_classes: K.
      kind: one of `LABEL_KINDS`; "classes", "probabilities" and "logits" of a hard label are its
        one-hot.
      scale: a positive factor.

    Returns:
      [..., K] float32.

    Raises:
      ConfigError: unknown kind.

    Example:
      >>> import jax.numpy as jnp
      >>> targets(jnp.array([1]), 2, kind="centred").tolist()
      [[-0.5, 0.5]]
    """
    if kind not in LABEL_KINDS or kind == "representations":
        raise unknown("kind of class labels", kind, LABEL_KINDS[:-1])
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    if kind == "centred":
        one_hot = one_hot - 1.0 / num_classes
    return scale * one_hot


def class_major_labels(num_classes: int, ipc: int) -> jax.Array:
    """[K * ipc] int32 labels 0, 0, ..., 1, 1, ...: the order of every synthetic set.

    Example:
      >>> class_major_labels(2, 2).tolist()
      [0, 0, 1, 1]
    """
    return jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), ipc)
