"""What the fields of a protocol may be, whoever wrote it: a user, or the file of somebody's set.

Kinds follow from the annotations of a record, ranges from one table. What is out of them would end
as an overflow inside a compiled program, or as one that never ends.
"""

from __future__ import annotations

import dataclasses
import numbers

import numpy as np

from dd_jax.errors import ConfigError, printable

COUNTER = 2**31 - 1  # the last number that a device counts to
_MOST_TEXT = 200

# Field -> the least and the largest that it may be; others have the range of their kind.
RANGES = {
    "depth": (1, 100), "width": (1, 16_384), "first_padding": (0, 64), "epochs": (1, COUNTER),
    "batch_size": (1, COUNTER), "seeds": (1, COUNTER), "start_seed": (0, 2**32 - 1),
    "momentum": (0.0, 1.0), "final_fraction": (0.0, 1.0), "cutmix": (0.0, 1.0),
    "mixup": (0.0, 1.0), "output_scale": (1e-18, 1e18),
}
_USUAL = {"int": (0, COUNTER), "float": (0.0, 1e18)}  # squares of these are finite in float32
_NAMES = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a short text",
          "None": "None"}


def check_fields(settings: object, *, prefix: str = "") -> None:
    """Refuses a record of which a field holds what its annotation or its range does not allow.

    Fields annotated by other than plain values are left to whoever made their records.

    Args:
      settings: a dataclass, annotated by int, float, bool, str, None and tuples of floats.
      prefix: of the names in an error.

    Raises:
      ConfigError: naming the first such field.

    Example:
      >>> @dataclasses.dataclass
      ... class Plan:
      ...   epochs: int = 3
      >>> check_fields(Plan("3"))
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: protocol epochs is '3', expected an integer ...
    """
    for field in dataclasses.fields(settings):
        kinds = str(getattr(field.type, "__name__", field.type)).split(" | ")
        several = "tuple[float, ...]" in kinds
        kinds = [kind for kind in kinds if kind != "tuple[float, ...]"]
        if not set(kinds) <= _NAMES.keys():
            continue
        value = getattr(settings, field.name)
        for part in value if several and isinstance(value, tuple) else (value,):
            if not any(_fits(part, kind, field.name) for kind in kinds):
                shown = printable(repr(part), most=60)
                raise ConfigError(
                    f"protocol {prefix}{field.name} is {shown}, expected "
                    + " or ".join(_described(kind, field.name) for kind in kinds),
                    fix=_example(field, prefix))


def _example(field: dataclasses.Field, prefix: str) -> str:
    if field.default is dataclasses.MISSING:
        return "give it as its record says"
    return f"pass for example {prefix}{field.name}={field.default!r}"


def _fits(value: object, kind: str, name: str) -> bool:
    if kind == "None":
        return value is None
    if kind == "str":
        return isinstance(value, str) and len(value) <= _MOST_TEXT
    if kind == "bool" or isinstance(value, (bool, np.bool_)):
        return kind == "bool" and isinstance(value, (bool, np.bool_))
    number = numbers.Integral if kind == "int" else numbers.Real
    least, most = RANGES.get(name, _USUAL[kind])
    return isinstance(value, number) and bool(least <= value <= most)


def _described(kind: str, name: str) -> str:
    if kind not in _USUAL:
        return _NAMES[kind]
    least, most = RANGES.get(name, _USUAL[kind])
    return f"{_NAMES[kind]} from {least:g} to " + (str(most) if kind == "int" else f"{most:g}")
