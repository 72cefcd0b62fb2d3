"""The manifest of a checkpoint: what is in it, who wrote it, and how to tell that it is whole."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.versions import versions

FORMAT = 1
ABSENT = "(absent)"


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


def flattened(settings: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts with dots.

    Example:
      >>> flattened({"a": {"b": 1}, "c": 2})
      {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, prefix=f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def leaf_hash(array: np.ndarray) -> str:
    """SHA-256 of the bytes of a contiguous host array."""
    # As bytes, because bfloat16 has no buffer of its own.
    return hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()


def self_hash(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest without its own "sha256"; this rule holds for every format version."""
    rest = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def build(
    step: int, leaves: Sequence[tuple[str, np.ndarray]], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes a state: one entry per leaf, in tree order, and the conditions of its writing."""
    manifest = {
        "format": FORMAT,
        "step": step,
        "identity": identity,
        "written_with": conditions(),
        "leaves": [
            {"path": p, "shape": list(a.shape), "dtype": a.dtype.name, "sha256": leaf_hash(a)}
            for p, a in leaves
        ],
    }
    return {**manifest, "sha256": self_hash(manifest)}


def conditions() -> dict[str, Any]:
    """Versions and devices: what must be equal for a resumed run to be equal bit for bit."""
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {**versions(), "devices": devices}


def check_whole(manifest: Any) -> dict[str, Any]:
    """Returns the manifest if its own hash fits, else raises ValueError with the reason."""
    if not isinstance(manifest, dict) or "sha256" not in manifest:
        raise ValueError("its manifest is not a manifest")
    if manifest["sha256"] != self_hash(manifest):
        raise ValueError("its manifest does not match its own hash")
    return manifest


def check_format(manifest: Mapping[str, Any], *, where: str) -> None:
    """Raises CheckpointError for the format of a newer release."""
    version = manifest.get("format")
    if version != FORMAT:
        raise CheckpointError(
            f"{where} was written in checkpoint format {version!r}, this release reads {FORMAT}",
            fix="upgrade dd_jax, or use another folder")


def check_identity(
    stored: Mapping[str, Any],
    current: Mapping[str, Any],
    *,
    free_fields: Iterable[str] = (),
    where: str = "the folder",
) -> None:
    """Raises CheckpointError with a field-by-field diff if a run is not the one that wrote.

    Example:
      >>> check_identity({"lr": 0.1, "steps": 5}, {"lr": 0.1, "steps": 9}, free_fields=["steps"])
    """
    free = tuple(free_fields)
    old, new = flattened(stored), flattened(current)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, ABSENT), new.get(name, ABSENT)
        if not _same(a, b) and not any(name == f or name.startswith(f + ".") for f in free):
            lines.append(f"  {name}: {_shown(a)} in the folder, {_shown(b)} now")
    if lines:
        raise CheckpointError(
            f"{where} holds the checkpoint of another run:\n" + "\n".join(lines) + "\n",
            fix="use another folder, or go back to the settings of the folder"
            + (f" (free to change: {', '.join(free)})" if free else ""))


def check_leaves(
    stored: Sequence[Mapping[str, Any]],
    wanted: Sequence[tuple[str, tuple[int, ...], str]],
    *,
    where: str,
) -> None:
    """Raises CheckpointError naming the first leaf whose path, shape or dtype differs."""
    have = [(x["path"], tuple(x["shape"]), x["dtype"]) for x in stored]
    for a, b in itertools.zip_longest(have, wanted):
        if a != b:
            raise CheckpointError(
                f"the state in {where} is not the state of this run: found {_leaf(a)}, "
                f"expected {_leaf(b)}",
                fix="use the method, sizes and library version that wrote it, or another folder")


def warn_of_other_versions(manifest: Mapping[str, Any]) -> None:
    """Warns if the run goes on under other versions or devices than it was saved with."""
    old, new = manifest["written_with"], conditions()
    changed = [f"{k} {old.get(k)} -> {v}" for k, v in new.items() if old.get(k) != v]
    if changed:
        warnings.warn("the checkpoint was saved under other conditions, the continued run may "
                      "differ in its last bits: " + ", ".join(changed), stacklevel=3)


def _leaf(leaf: tuple | None) -> str:
    if leaf is None:
        return "no further leaf"
    path, shape, dtype = leaf
    return f"{path or '(root)'} {dtype}{list(shape)}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _shown(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
