"""What a frozen network says of a batch, and what of it a loss is told.

Batch normalisation takes its running statistics, or those of the batch that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError, unknown
from dd_jax.labels.losses import Taught, require_loss, require_targets
from dd_jax.types import Network, PyTree

MODES = ("running", "batch")


def _probabilities(logits: jax.Array, labels: PyTree, temperature: float) -> jax.Array:
    return jax.nn.softmax(logits / temperature)


def _logits(logits: jax.Array, labels: PyTree, temperature: float) -> jax.Array:
    return logits


def _with_labels(logits: jax.Array, labels: jax.Array, temperature: float) -> Taught:
    if jnp.ndim(labels) != 2:
        raise ConfigError("the labels are class numbers, and the loss takes probabilities [B, K]",
                          fix="pass one-hot labels, or a loss of class numbers")
    return Taught(logits, labels)


def _with_classes(logits: jax.Array, labels: jax.Array, temperature: float) -> Taught:
    return Taught(logits, labels if labels.ndim == 1 else jnp.argmax(labels, axis=-1))


# What a loss takes -> (a teacher's logits [B, K], the set's labels, temperature) -> targets.
TOLD: Mapping[str, Callable[[jax.Array, PyTree, float], PyTree]] = MappingProxyType({
    "probabilities": _probabilities, "free": _probabilities, "logits": _logits,
    "logits and classes": _with_classes, "logits and probabilities": _with_labels,
})


def told_to(loss: Any, temperature: float = 1.0) -> str:
    """What a loss takes of a teacher, a name in `TOLD`: probabilities, where it does not say.

    Raises:
      ConfigError: it is no function, takes what a teacher of the same views does not say, or has a
        temperature of its own beside this one.

    Example:
      >>> told_to(lambda logits, targets: 0.0)
      'probabilities'
    """
    require_loss(loss)
    wanted = getattr(loss, "targets", "probabilities")
    if wanted not in TOLD:
        require_targets(loss, "logits", what="a teacher's words")
    if temperature != 1.0 and TOLD[wanted] is not _probabilities:
        raise ConfigError(f"temperature is {temperature!r} beside a loss of the logits themselves",
                          fix=f"write losses.named({getattr(loss, 'name', '...')!r}, temperature="
                              f"{temperature!r}), or leave it out")
    return wanted


def check_mode(mode: str) -> None:
    """Refuses what is not in `MODES`.

    Raises:
      ConfigError: as said.
    """
    if mode not in MODES:
        raise unknown("mode of a teacher", mode, MODES)


def look(
    network: Network, variables: PyTree, images: jax.Array, *, mode: str = "running"
) -> jax.Array:
    """Logits of a batch.

    Args:
      network: the architecture.
      variables: of the network; they stay as they are.
      images: [B, H, W, C] in model space.
      mode: "running": batch normalisation by its running statistics, a few images at a time on a
        CPU; "batch": by the statistics of these images, all at once.

    Returns:
      [B, K] float32.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> look(network, network.init(jax.random.key(0)), jnp.ones((3, 2, 2, 1))).shape
      (3, 2)
    """
    train = mode == "batch"

    def logits(images):
        return network.apply(variables, images, train).logits

    return logits(images) if train else in_chunks(logits, images)
