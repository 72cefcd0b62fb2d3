"""The small JSON files of a run folder: read with limits, written whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from dd_jax.errors import SetFileError
from dd_jax.store import envelope
from dd_jax.store.atomic import write_atomically


def parsed(text: bytes) -> dict[str, Any]:
    """Parses one JSON object within the bounds of `store.envelope.read_json`.

    Raises:
      ValueError: with the reason, whatever is wrong with the text.

    Example:
      >>> parsed(b'{"seconds": 3}')
      {'seconds': 3}
    """
    try:
        return envelope.read_json(text, "it", fix="")
    except SetFileError as error:
        raise ValueError(error.message) from error


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a regular file with one JSON object; a link is refused, a run's folder has none.

    Raises:
      FileNotFoundError: it is not there.
      ValueError: it cannot be read or is damaged; the text says why.
    """
    try:
        return envelope.read_json_file(path, "it", fix="")
    except SetFileError as error:
        raise ValueError(error.message) from error


def write_json(path: str | os.PathLike, entry: Mapping[str, Any]) -> None:
    """Writes one JSON object and a newline; a reader sees the old file or the new one.

    Raises:
      SetFileError: the disk is full or the folder cannot be written.
    """
    text = json.dumps(entry) + "\n"
    write_atomically(pathlib.Path(path), lambda file: file.write(text.encode()))
