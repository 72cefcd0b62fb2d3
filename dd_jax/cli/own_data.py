"""The data of a command: what --data names and how it is read, and what a set remembers of both."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Container, Mapping
from typing import Any

from dd_jax.data import ENVIRONMENT, SOURCES, is_path, load, options_of
from dd_jax.data.places import stands_at
from dd_jax.errors import ConfigError, told
from dd_jax.store import DistilledSet
from dd_jax.types import DataSpec, Split


def load_data(options: Any) -> Split:
    """Loads what --data names, as --size and the others say."""
    return load(options.data, **reading(options))


def reading(options: Any) -> dict[str, Any]:
    """Arguments of `data.load`, of the options that were given."""
    names = options.class_names
    found = {"size": None if options.size is None else _sides(options.size),
             "channels": options.channels, "test_fraction": options.test_share,
             "class_names": None if names is None else [n.strip() for n in names.split(",")]}
    return {name: value for name, value in found.items() if value is not None}


def _sides(text: str) -> int | tuple[int, ...]:
    """32 or (28, 32) of "32" or "28x32"."""
    try:
        sides = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        raise ConfigError(f"size is {text!r}, expected pixels",
                          fix="pass --size 32, or --size 28x32 for height and width") from None
    return sides[0] if len(sides) == 1 else sides


def where_from(options: Any) -> dict[str, Any]:
    """What a set remembers of data that are the user's own or of tfds: a name, and how it was read.

    Never a path: whoever gets the set shall not learn where it was, nor open what is there.
    """
    if not is_path(options.data) and not options.data.startswith("tfds:"):
        return {}
    name = options.data
    if is_path(name):
        name = pathlib.Path(name).name or pathlib.Path(name).resolve().name
    return {"own_data": {"name": name, **reading(options)}}


def data_of_set(options: Any, distilled: DistilledSet) -> Split:
    """The data that a set is tested on: what --data names, or what it was distilled from.

    A name out of a file is looked up among the names that the library knows and in the folder of
    DD_JAX_DATA, and is never a path.

    Raises:
      ConfigError: it is not there.
    """
    known = distilled.recipe.get("own_data")
    known = known if isinstance(known, Mapping) else {}
    name = known.get("name", distilled.spec.name)
    if options.data is not None:
        source = options.data
    elif isinstance(name, str) and (name in SOURCES or (known and name.startswith("tfds:"))):
        source = name
    else:
        source = _in_folder_of_data(name)
    read = reading(options)
    if is_path(source):
        same = pathlib.Path(source).name == name
        read = {**_remembered(known, distilled.spec, options_of(source), same=same), **read}
    return load(source, **read)


def _remembered(
    known: Mapping[str, Any], spec: DataSpec, takes: Container[str], *, same: bool
) -> dict[str, Any]:
    """How the set's data were read, as far as other data can be read so; numbers are its own."""
    read = {"size": tuple(spec.shape[:2]), "channels": spec.shape[-1],
            "class_names": spec.class_names}
    if same:
        read["test_fraction"] = known.get("test_fraction")
    return {option: value for option, value in read.items() if option in known and option in takes}


def _in_folder_of_data(name: Any) -> pathlib.Path:
    """The place of that name in the folder of DD_JAX_DATA."""
    base = os.environ.get(ENVIRONMENT)
    plain = isinstance(name, str) and name == pathlib.PurePath(name).name
    plain = plain and name != "" and name[0] != "."
    if base and plain and stands_at(pathlib.Path(base) / name) != "nothing":
        return pathlib.Path(base) / name
    raise ConfigError(
        f"the set was distilled from {told(name)}, which is no well-known set, and does not say "
        f"where it is; {ENVIRONMENT} " + (f"holds no {told(name)}" if base else "is not set"),
        fix="pass --data PATH")
