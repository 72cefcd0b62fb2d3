"""Weighted sums of losses, each of which is told the part of the targets that it takes.

    sum_n w_n loss_n(logits, targets)

Losses of one kind of targets are told the same. A teacher's logits, class numbers and labels may be
mixed: then the targets of the sum are a `Taught`, of whose logits and labels each takes its own.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import jax

from dd_jax.errors import ConfigError, require_above_zero, require_kind
from dd_jax.labels.losses.record import NamedLoss
from dd_jax.labels.losses.targets import KINDS
from dd_jax.types import PyTree

# Of a `Taught`, what a loss of each kind takes.
_PARTS = MappingProxyType({
    "logits": lambda told: told.logits,
    "classes": lambda told: told.labels,
    "probabilities": lambda told: told.labels,
    "logits and classes": lambda told: told,
    "logits and probabilities": lambda told: told,
})


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A sum of losses: callable as one, equal by value, hashable; see `weighted_sum`.

    Attributes:
      terms: ((weight, loss), ...).
      targets: what the sum is told.
    """

    terms: tuple[tuple[float, NamedLoss], ...]
    targets: str
    of: str = "logits"

    @property
    def name(self) -> str:
        return "+".join(f"{weight:g}*{loss.name}" for weight, loss in self.terms)

    @property
    def whole(self) -> bool:
        return any(loss.whole for _, loss in self.terms)

    def __call__(self, logits: jax.Array, targets: PyTree) -> jax.Array:
        return sum(weight * loss(logits, _part(self.targets, loss.targets, targets))
                   for weight, loss in self.terms)


def weighted_sum(*terms: tuple[float, NamedLoss]) -> WeightedSum:
    """The sum of weighted losses.

    Args:
      *terms: (weight above 0, loss of the table) each.

    Returns:
      A `WeightedSum`, (logits, targets) -> [B].

    Raises:
      ConfigError: no terms, a weight that cannot be, a plain function, losses whose targets cannot
        be told together.

    Example:
      >>> from dd_jax.labels.losses.table import named
      >>> weighted_sum((1.0, named("cross_entropy")), (1.5, named("uld"))).targets
      'logits and probabilities'
    """
    if not terms:
        raise ConfigError("a sum of no losses", fix="pass (1.0, losses.named('kl')), ...")
    for weight, loss in terms:
        require_above_zero("weight", weight, why="the loss would not count", example=1.0)
        require_kind("a loss of the sum", loss, NamedLoss, expected="one of losses.named",
                     fix="pass losses.named('cross_entropy') in place of the function")
        if loss.of != "logits":
            raise ConfigError(f"loss {loss.name!r} sees all outputs, and a sum logits alone",
                              fix="sum what it needs in a function of the outputs")
    return WeightedSum(tuple((float(weight), loss) for weight, loss in terms),
                       _together([loss for _, loss in terms]))


def _part(given: str, wanted: str, targets: PyTree) -> PyTree:
    return targets if wanted == given else _PARTS[wanted](targets)


def _together(losses: list[NamedLoss]) -> str:
    """The kind of targets that serves all."""
    kinds = {loss.targets for loss in losses}
    if len(kinds) == 1:
        return kinds.pop()
    labels = {kind.removeprefix("logits and ") for kind in kinds} - {"logits"}
    if not kinds <= set(_PARTS) or len(labels) != 1:
        raise ConfigError(
            "losses of a sum are told different things: " + "; ".join(
                f"{loss.name} takes {KINDS.get(loss.targets, loss.targets)}" for loss in losses),
            fix="sum losses of a teacher's logits with those of class numbers or those of labels")
    return f"logits and {labels.pop()}"
