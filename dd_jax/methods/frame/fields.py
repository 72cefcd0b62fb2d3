"""Types of settings with what they have to be; each is checked once, by `check_fields`."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Container
from functools import cache, partial
from typing import Annotated, Any, NamedTuple

from dd_jax.augment.table import AUGMENTATIONS
from dd_jax.data import NORMALISERS
from dd_jax.errors import (
    ConfigError,
    require_above_zero,
    require_at_least_zero,
    require_decay,
    require_probability,
    require_seed,
    require_whole,
    unknown,
)
from dd_jax.nets.layers import NORMS
from dd_jax.objectives.gradient_distances import DISTANCES
from dd_jax.select import OF_FEATURES
from dd_jax.synthetic import STARTS
from dd_jax.synthetic.pixels import LABEL_HEADS


class Must(NamedTuple):
    """What a value has to be.

    Attributes:
      hold: (name, value) -> None, raises ConfigError otherwise.
    """

    hold: Callable[[str, Any], None]


def one_of(valid: Container[str], what: str = "") -> Must:
    """A name out of a table; `what` is how errors call it, the field's own name by default."""

    def hold(name: str, value: Any) -> None:
        if not isinstance(value, str) or value not in valid:
            raise unknown(what or name, value, valid)

    return Must(hold)


def above_zero(why: str, example: float) -> Must:
    """A finite number above 0."""
    return Must(partial(require_above_zero, why=why, example=example))


def at_least(least: int, example: int) -> Must:
    """A whole number of at least `least`."""
    return Must(partial(require_whole, least=least, example=example))


def _number(name: str, value: Any) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}, expected a finite number", fix=f"pass {name}=0.1")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}, expected True or False", fix=f"pass {name}=True")


Whole = Annotated[int, Must(require_whole)]
Seed = Annotated[int, Must(require_seed)]
Rate = Annotated[float, Must(require_at_least_zero)]
LearnedRate = Annotated[float, above_zero("its logarithm is learned", 0.01)]
Decay = Annotated[float, Must(require_decay)]
Share = Annotated[float, Must(require_probability)]
Start = Annotated[str, one_of((*STARTS, *OF_FEATURES), "initialisation")]
Normalisation = Annotated[str, one_of(NORMALISERS, "normaliser")]
LabelHead = Annotated[str, one_of(LABEL_HEADS, "label head")]
Norm = Annotated[str, one_of(NORMS, "normalisation")]
GradientDistance = Annotated[str, one_of(DISTANCES, "gradient distance")]
Views = Annotated[str, one_of(AUGMENTATIONS, "augmentation")]
_PLAIN = {bool: Must(_flag), float: Must(_number)}


@cache
def _musts(kind: type) -> dict[str, tuple[tuple[Must, ...], bool]]:
    """name -> (what it must be, whether None will do), of every field of a class of settings."""
    found = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        parts = (typing.get_args(hint)
                 if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,))
        musts = [m for part in parts for m in getattr(part, "__metadata__", ())
                 if isinstance(m, Must)]
        musts += [_PLAIN[part] for part in parts if part in _PLAIN]
        found[name] = tuple(musts), type(None) in parts
    return found


def check_fields(settings: Any) -> None:
    """Raises ConfigError for the first field of a record that is not what its type says."""
    for name, (musts, optional) in _musts(type(settings)).items():
        value = getattr(settings, name)
        if not (optional and value is None):
            for must in musts:
                must.hold(name, value)
