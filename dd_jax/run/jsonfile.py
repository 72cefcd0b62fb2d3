"""The small JSON files of a run folder: read with limits, written whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from dd_jax.store.atomic import write_atomically
from dd_jax.store.envelope import MAX_JSON_BYTES, check_depth


def parsed(text: bytes) -> dict[str, Any]:
    """Parses one JSON object of limited size and nesting.

    Raises:
      ValueError: with the reason, whatever is wrong with the text.

    Example:
      >>> parsed(b'{"seconds": 3}')
      {'seconds': 3}
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it has more than {MAX_JSON_BYTES} bytes")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, expected an object")
    check_depth(value)
    return value


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file with one JSON object.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it cannot be read or is damaged; the text says why.
    """
    try:
        with open(path, "rb") as file:
            return parsed(file.read(MAX_JSON_BYTES + 1))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error


def write_json(path: str | os.PathLike, entry: Mapping[str, Any]) -> None:
    """Writes one JSON object and a newline; a reader sees the old file or the new one.

    Raises:
      SetFileError: the disk is full or the folder cannot be written.
    """
    text = json.dumps(entry) + "\n"
    write_atomically(pathlib.Path(path), lambda file: file.write(text.encode()))
