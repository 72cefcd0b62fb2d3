"""How a loss is declared, and what its name and options make of it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax

from dd_jax.errors import (
    ConfigError,
    require_above_zero,
    require_at_least_zero,
    require_probability,
    require_whole,
    told,
    unknown,
)
from dd_jax.types import PyTree

Loss = Callable[[jax.Array, PyTree], jax.Array]
Check = Callable[[str, object], None]


@dataclasses.dataclass(frozen=True)
class Entry:
    """The declaration of a loss: a function with what others have to know of it.

    Attributes:
      function: (logits [B, K], targets, **options) -> [B]; `logits` are the student's.
      targets: what the second argument is: a name in `KINDS`, or that of a NamedTuple.
      of: "logits", or "outputs" where the first argument is the student's whole `Outputs`.
      whole: whether rows of a batch are compared with one another, so that it may not be cut.
      options: defaults by name; "name@4" on the command line sets the first of them.
      source: the paper.
      checks: what an option has to be, by name, see `check_options`.

    Example:
      >>> Entry(lambda logits, targets, temperature: None, options={"temperature": 4.0}).of
      'logits'
    """

    function: Callable[..., jax.Array]
    targets: str = "probabilities"
    of: str = "logits"
    whole: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    checks: Mapping[str, Check] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NamedLoss:
    """A loss with its options: callable as (logits, targets) -> [B], equal by value, hashable.

    Attributes:
      name: in the table.
      options: ((name, value), ...), all of them.
      function, targets, of, whole: of its `Entry`.
    """

    name: str
    options: tuple[tuple[str, Any], ...]
    function: Callable[..., jax.Array]
    targets: str
    of: str
    whole: bool

    def __call__(self, logits: Any, targets: PyTree) -> jax.Array:
        return self.function(logits, targets, **dict(self.options))


def make(name: str, entry: Entry, changes: Mapping[str, Any]) -> NamedLoss:
    """The loss of an entry, with some of its options changed.

    Raises:
      ConfigError: an option that the loss does not have, or a value that it cannot have.

    Example:
      >>> scaled = Entry(lambda logits, targets, by: by * logits[:, 0], options={"by": 1.0})
      >>> make("scaled", scaled, {"by": 3}).options
      (('by', 3.0),)
    """
    for option in changes:
        if option not in entry.options:
            if not entry.options:
                raise ConfigError(f"loss {name!r} has no options, given {option}",
                                  fix=f"pass {name!r} alone")
            raise unknown(f"option of the loss {name!r}", option, entry.options)
    options = {option: _like(default, changes.get(option, default))
               for option, default in entry.options.items()}
    check_options(name, entry, options)
    return NamedLoss(name, tuple(options.items()), entry.function, entry.targets, entry.of,
                     entry.whole)


def above_zero(why: str, example: float) -> Check:
    """The check of an option that is above 0."""
    return lambda name, value: require_above_zero(name, value, why=why, example=example)


def below_one(name: str, value: object) -> None:
    """The check of a share that is at least 0 and below 1."""
    require_probability(name, value)
    if value == 1:
        raise ConfigError(f"{name} is 1, expected less: nothing would be left of the student",
                          fix=f"pass {name.split()[-1]}=0.1")


CHECKS: Mapping[str, Check] = MappingProxyType({
    "temperature": above_zero("logits are divided by it", 4.0),
})


def check_options(name: str, entry: Entry, options: Mapping[str, Any]) -> None:
    """Refuses values that an entry's options cannot have.

    An option is what its default is: true or false, a whole number of at least 1, a finite number.
    An entry's own check comes first, then one in `CHECKS`, which holds for all losses.

    Raises:
      ConfigError: as said.
    """
    for option, default in entry.options.items():
        for like, check in _KINDS_OF_OPTIONS:
            if isinstance(default, like):
                check(f"loss {name!r}: {option}", options[option])
                break
        for checks in (entry.checks, CHECKS):
            if option in checks:
                checks[option](f"loss {name!r}: {option}", options[option])
                break


def _require_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {told(value)}, expected True or False",
                          fix=f"pass {name.split()[-1]}=True")


def _require_finite(name: str, value: object) -> None:
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (good and math.isfinite(value)):
        raise ConfigError(f"{name} is {told(value)}, expected a finite number",
                          fix=f"pass {name.split()[-1]}=1.0")


# bool is an int, and so comes before it.
_KINDS_OF_OPTIONS: tuple[tuple[type, Check], ...] = (
    (bool, _require_switch), (int, require_whole), (float, _require_finite))


def _like(default: Any, value: Any) -> Any:
    """4 as 4.0 where the default is a float, so that equal losses are equal to the bit."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return float(value) if isinstance(default, float) and number else value


def require_loss(loss: object) -> None:
    """Refuses what is no function, such as the name of a loss.

    Raises:
      ConfigError: as said.
    """
    if not callable(loss):
        raise ConfigError(
            f"loss is {loss!r}, expected a function (logits, targets) -> [B]",
            fix="pass for example losses.cross_entropy, or losses.named('kl')")


at_least_zero: Check = require_at_least_zero
probability: Check = require_probability
