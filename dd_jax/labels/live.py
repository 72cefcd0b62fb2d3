"""What a frozen network says of a batch: its logits, their probabilities, a class, all it gives.

Batch normalisation takes its running statistics, or those of the batch that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError, unknown
from dd_jax.types import Network, Outputs, PyTree

MODES = ("running", "batch")


def _probabilities(outputs: Outputs, temperature: float) -> jax.Array:
    return jax.nn.softmax(outputs.logits / temperature)


def _logits(outputs: Outputs, temperature: float) -> jax.Array:
    return outputs.logits


def _classes(outputs: Outputs, temperature: float) -> jax.Array:
    return jnp.argmax(outputs.logits, axis=-1).astype(jnp.int32)


def _outputs(outputs: Outputs, temperature: float) -> Outputs:
    return outputs._replace(batch_stats={})


# What a loss is told -> (outputs, temperature) -> it, a pytree of [B, ...].
TOLD: MappingProxyType[str, Callable[[Outputs, float], PyTree]] = MappingProxyType({
    "probabilities": _probabilities, "logits": _logits, "classes": _classes, "outputs": _outputs,
})


def told_to(loss: Any) -> str:
    """What a loss asks of a teacher, a name in `TOLD`: probabilities, where it does not say.

    Raises:
      ConfigError: it asks for what a teacher's look at a batch does not give.

    Example:
      >>> told_to(lambda logits, targets: 0.0)
      'probabilities'
    """
    asked = getattr(loss, "targets", "probabilities")
    if asked not in TOLD:
        raise ConfigError(f"the loss is told {asked!r}, and a teacher tells {', '.join(TOLD)}",
                          fix="take a loss of one of these, such as 'kl@4'")
    return asked


def check_mode(mode: str) -> None:
    """Refuses what is not in `MODES`.

    Raises:
      ConfigError: as said.
    """
    if mode not in MODES:
        raise unknown("mode of a teacher", mode, MODES)


def look(
    network: Network, variables: PyTree, images: jax.Array, *, told: str = "logits",
    temperature: float = 1.0, mode: str = "running",
) -> PyTree:
    """What a network says of a batch.

    Args:
      network: the architecture.
      variables: of the network; they stay as they are.
      images: [B, H, W, C] in model space.
      told: a name in `TOLD`.
      temperature: that logits are divided by before they become probabilities.
      mode: "running": batch normalisation by its running statistics, a few images at a time on a
        CPU; "batch": by the statistics of these images, all at once.

    Returns:
      [B, K] float32, [B] int32 classes, or `Outputs`.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> look(network, network.init(jax.random.key(0)), jnp.ones((3, 2, 2, 1))).shape
      (3, 2)
    """
    train = mode == "batch"

    def of(images):
        return TOLD[told](network.apply(variables, images, train), temperature)

    return of(images) if train else in_chunks(of, images)
