"""A stand-in for `labels.losses.parse` that knows two losses, until that is there."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero, unknown


@dataclasses.dataclass(frozen=True)
class Named:
    """A loss by its name and its temperature."""

    name: str
    temperature: float = 1.0

    of = "logits"
    whole = False

    @property
    def targets(self) -> str:
        """What the loss is told."""
        return "logits" if self.name == "kl" else "probabilities"

    def __call__(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        ours = jax.nn.log_softmax(logits / self.temperature)
        if self.name == "cross_entropy":
            return -jnp.sum(targets * ours, axis=-1)
        theirs = jax.nn.log_softmax(targets / self.temperature)
        return self.temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


def parse(text: str) -> Named:
    """The loss of "cross_entropy", or of "kl@4".

    Raises:
      ConfigError: another name, or no temperature.

    Example:
      >>> parse("kl@4").temperature
      4.0
    """
    name, at, number = text.partition("@")
    if name not in ("cross_entropy", "kl"):
        raise unknown("loss", name, ("cross_entropy", "kl"))
    if not at:
        return Named(name)
    try:
        temperature = float(number)
    except ValueError:
        raise ConfigError(f"the temperature of {text!r} is {number!r}, expected a number",
                          fix="write for example 'kl@4'") from None
    require_above_zero("temperature", temperature, why="logits are divided by it", example=4.0)
    return Named(name, temperature)
