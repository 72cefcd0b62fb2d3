"""Which run this is: its settings and JAX's switches, compared field by field with a stored run."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.versions import versions

# Each of these changes numbers, not only their last bits.
SWITCHES = ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_matmul_precision",
            "jax_default_prng_impl")
_ABSENT = "(absent)"


def plain(value: Any, *, name: str = "identity") -> Any:
    """Copies nested settings into what JSON can hold; tuples become lists.

    Raises:
      ConfigError: a value is not a mapping, sequence, number, text, path, bool or None.

    Example:
      >>> plain({"rates": (0.1, 1)})
      {'rates': [0.1, 1]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v, name=f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, name=f"{name}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist(), name=name)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{name} is a {type(value).__name__}, expected plain settings",
                      fix="use numbers, texts, lists and dicts, or the name of the thing")


def full_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings as JSON can hold them, with the switches of JAX that change numbers.

    Example:
      >>> full_identity({"seed": 0})["switches"]["jax_enable_x64"]
      False
    """
    return {**plain(identity), "switches": {name: getattr(jax.config, name) for name in SWITCHES}}


def conditions() -> dict[str, Any]:
    """Versions and devices: what must be equal for a resumed run to be equal bit for bit."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {**versions(), "devices": devices}


def check_identity(
    stored: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    free_fields: Iterable[str] = (),
    where: str = "the folder",
) -> None:
    """Raises CheckpointError with every field in which two runs differ.

    Args:
      stored: the identity found in the folder.
      current: that of this run.
      free_fields: names that may differ, with dots for nested ones.
      where: the folder, for the message.

    Example:
      >>> check_identity({"lr": 0.1, "steps": 5}, {"lr": 0.1, "steps": 9}, free_fields=["steps"])
    """
    free = tuple(free_fields)
    old, new = _flattened(stored), _flattened(current)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if not _same(a, b) and not any(name == f or name.startswith(f + ".") for f in free):
            lines.append(f"  {name}: {_shown(a)} in the folder, {_shown(b)} now")
    if lines:
        raise CheckpointError(
            f"{where} belongs to another run:\n" + "\n".join(lines) + "\n",
            fix="use another folder, or go back to the settings of the folder"
            + (f" (free to change: {', '.join(free)})" if free else ""))


def warn_of_other_conditions(stored: Mapping[str, Any]) -> None:
    """Warns if the run goes on under other versions or devices than it was saved with."""
    changed = [f"{k} {stored.get(k)} -> {v}" for k, v in conditions().items() if stored.get(k) != v]
    if changed:
        warnings.warn("the checkpoint was saved under other conditions, the continued run may "
                      "differ in its last bits: " + ", ".join(changed), stacklevel=3)


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a.b": 1} of {"a": {"b": 1}}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flattened(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _shown(value: Any) -> str:
    text = value if value == _ABSENT else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
