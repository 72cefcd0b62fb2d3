"""Reading bytes of unknown honesty: limits first, and only ever DataError."""

from __future__ import annotations

import pathlib
from typing import Any, Union

from dd_jax.errors import DataError

PathLike = Union[str, pathlib.Path]
MAX_BYTES = 4 * 2**30
_STEP = 2**20


def checked_file(path: PathLike, *, max_bytes: int = MAX_BYTES) -> tuple[pathlib.Path, int]:
    """The path of an existing regular file of a sane size, with that size.

    Raises:
      DataError: missing, not a regular file, unreadable or larger than `max_bytes`.
    """
    path = pathlib.Path(path)
    try:
        regular, size = path.is_file(), path.stat().st_size
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})", fix="check the path") from None
    if not regular:
        raise DataError(f"{path}: expected a file, found something else", fix="check the path")
    if size > max_bytes:
        raise DataError(
            f"{path}: {size} bytes, above the limit of {max_bytes}",
            fix="keep such a set as a memory-mapped array: from_arrays(..., device=False)",
        )
    return path, size


def read_limited(stream: Any, limit: int) -> bytes:
    """At most `limit` bytes, in steps, so that a lying header cannot make us allocate."""
    parts = bytearray()
    while len(parts) < limit:
        part = stream.read(min(_STEP, limit - len(parts)))
        if not part:
            break
        parts += part
    return bytes(parts)
