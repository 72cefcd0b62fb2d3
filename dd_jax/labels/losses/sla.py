"""SLA: labels of the class and of what was done to the image, together.

An image is shown in M ways, such as four rotations, and the student has K M outputs: class k shown
in way j is output k M + j.

    sla           cross-entropy to the label of class and way
    aggregated    z_k = mean_j z^(j)[k M + j], of the same image shown in all ways

An image is classified by the aggregated logits; with them as a teacher's, constant, `kl` at
temperature 1 is the paper's self-distillation into an ordinary head of K outputs.

No card of the project has this loss: it is from memory, and so is the order of the outputs.

Source: Lee et al., Self-supervised Label Augmentation via Input Transformations, ICML 2020.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.labels.losses.record import Entry


class Shown(NamedTuple):
    """What `sla` is told.

    Attributes:
      labels: [B, K] probabilities of the classes.
      ways: [B] int32, in which of M ways each image is shown.
    """

    labels: jax.Array
    ways: jax.Array


def sla(logits: jax.Array, targets: Shown) -> jax.Array:
    """-sum_k t_k log softmax(logits)_(k M + j) for an image shown in way j.

    Args:
      logits: [B, K M].
      targets: a `Shown`.

    Returns:
      [B].

    Raises:
      ConfigError: outputs that are not a whole number for each class.

    Example:
      >>> sla(jnp.zeros((1, 4)), Shown(jnp.array([[1.0, 0.0]]), jnp.array([1]))).round(2).tolist()
      [1.3...]
    """
    classes = targets.labels.shape[-1]
    log_p = jax.nn.log_softmax(logits).reshape(-1, classes, ways_of(logits, classes))
    shown = jnp.take_along_axis(log_p, targets.ways[:, None, None], axis=2)[..., 0]
    return -jnp.sum(targets.labels * shown, axis=-1)


def aggregated(logits: jax.Array, classes: int) -> jax.Array:
    """The logits of classes, from those of an image shown in all ways.

    Args:
      logits: [M, B, K M], shown in way j in row j.
      classes: K.

    Returns:
      [B, K].

    Raises:
      ConfigError: outputs that are not M for each class.

    Example:
      >>> aggregated(jnp.arange(8.0).reshape(2, 1, 4), 2).tolist()  # (0 + 5) / 2, (2 + 7) / 2
      [[2.5, 4.5]]
    """
    ways = ways_of(logits, classes)
    if ways != logits.shape[0]:
        raise ConfigError(f"the outputs stand for {ways} ways and there are {logits.shape[0]}",
                          fix="pass the logits of all ways, [M, B, K M]")
    parted = logits.reshape(ways, -1, classes, ways)
    return jnp.mean(jnp.diagonal(parted, axis1=0, axis2=3), axis=-1)


def ways_of(logits: jax.Array, classes: int) -> int:
    """M, of outputs [..., K M].

    Raises:
      ConfigError: K M that K does not divide.

    Example:
      >>> ways_of(jnp.zeros((1, 8)), 2)
      4
    """
    if logits.shape[-1] % classes:
        raise ConfigError(f"the student has {logits.shape[-1]} outputs for {classes} classes, "
                          "expected the same number for each",
                          fix="build the network with K M classes, M the ways an image is shown")
    return logits.shape[-1] // classes


ENTRIES = MappingProxyType({
    "sla": Entry(sla, "Shown", source="Lee et al., Self-supervised Label Augmentation via "
                                          "Input Transformations, ICML 2020"),
})
