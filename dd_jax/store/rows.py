"""One tensor as a safetensors file of which single rows can be read and trusted.

Serves experts' trajectories (a row for each epoch) and label stores (the labels of each epoch). The
card holds a hash of each row and one of itself, so a header that was checked vouches for every
byte. Written by hand, because rows are streamed from arrays larger than memory, and rows are read
by hand, because each is hashed and a file may lose its end while it is open; what the header says
is read and checked by safetensors.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dd_jax.errors import DDJaxError, SetFileError
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.container import CARD_KEY, CODES, open_tensors, read_card
from dd_jax.store.envelope import canonical, header_hash, plain

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


class RowFormat(NamedTuple):
    """A kind of file of rows.

    Attributes:
      name: its card's "format".
      version: that this release writes and reads.
      tensor: the name of its one tensor.
      axes: of that tensor, the rows among them.
      dtypes: that it may have.
      what: is in such a file, for errors: "an expert".
      error: type of the errors.
      refused: (path, problem) -> the error of a file that is not as it was written.
    """

    name: str
    version: int
    tensor: str
    axes: int
    dtypes: tuple[str, ...]
    what: str
    error: type[DDJaxError]
    refused: Callable[[pathlib.Path, str], DDJaxError]


class RowFile(NamedTuple):
    """A file whose header has been checked.

    Attributes:
      path: of the file.
      format: of which kind it is.
      offset: [bytes] of the first row.
      shape: of the tensor, rows first.
      dtype: of the tensor, a name.
      hashes: SHA-256 of the bytes of each row.
      description: what the writer said about it, JSON-able.
      sha256: of its card, which holds the hashes of the rows.
    """

    path: pathlib.Path
    format: RowFormat
    offset: int
    shape: tuple[int, ...]
    dtype: str
    hashes: tuple[str, ...]
    description: dict[str, Any]
    sha256: str

    @property
    def row_bytes(self) -> int:
        """How long a row is."""
        return _BYTES[self.dtype] * int(np.prod(self.shape[1:], dtype=object))


def write_rows(
    path: PathLike,
    array: np.ndarray,
    kind: RowFormat,
    *,
    dtype: str,
    description: Mapping[str, Any],
) -> pathlib.Path:
    """Writes rows as one file, whole or not at all; equal content gives equal bytes.

    Args:
      path: of the file.
      array: [R, ...] float; read twice, row by row.
      kind: of the file.
      dtype: of the file, one of `kind.dtypes`.
      description: JSON-able.

    Returns:
      The path.

    Raises:
      SetFileError: the file cannot be written, or a description that JSON cannot hold.
    """
    record = {
        "format": kind.name, "format_version": kind.version, "dtype": dtype,
        "shape": list(array.shape), "description": plain(dict(description), "description"),
        "rows": [hashlib.sha256(encoded(row, dtype)).hexdigest() for row in array],
    }
    record["sha256"] = header_hash(record)
    table = {"dtype": CODES[dtype], "shape": list(array.shape),
             "data_offsets": [0, _BYTES[dtype] * array.size]}
    header = canonical({"__metadata__": {CARD_KEY: canonical(record)}, kind.tensor: table}).encode()
    header += b" " * (-len(header) % 8)

    def write(file):
        file.write(len(header).to_bytes(8, "little") + header)
        for row in array:
            file.write(encoded(row, dtype))

    return write_atomically(path, write)


def open_rows(path: PathLike, kind: RowFormat) -> RowFile:
    """Reads and checks the header of a file of rows; touches no row.

    Args:
      path: a file that `write_rows` wrote.
      kind: what it has to be.

    Returns:
      The `RowFile`.

    Raises:
      DDJaxError: of the type that `kind` says; cut short, damaged, foreign or of a newer release,
        with what to do.
    """
    path = pathlib.Path(path)
    try:
        size = os.stat(path).st_size
        with open_tensors(path, max_bytes=size) as file:
            record, names = read_card(file, kind.name), sorted(file.keys())
            tables = {name: file.get_slice(name) for name in names}
            tables = {name: (entry.get_dtype(), entry.get_shape())
                      for name, entry in tables.items()}
    except OSError as error:
        raise _unreadable(path, kind, error) from error
    except SetFileError as error:
        problem = f"is not a whole file of {kind.what}: it {error.message}"
        raise kind.refused(path, problem) from error
    whole = record.get("sha256") == header_hash(record)
    # This rule holds for every version, so that damage is never taken for a newer release.
    if whole and record.get("format_version") != kind.version:
        raise kind.error(f"{path} has format version {str(record.get('format_version'))[:20]}, "
                         f"this release reads {kind.version}", fix="upgrade dd_jax")
    shape, dtype = _shape(record.get("shape"), kind.axes), record.get("dtype")
    hashes, description = record.get("rows"), record.get("description")
    if (not whole or shape is None or dtype not in kind.dtypes or not isinstance(description, dict)
            or not isinstance(hashes, list) or len(hashes) != shape[0]
            or tables != {kind.tensor: (CODES[dtype], list(shape))}):
        raise kind.refused(path, "is damaged: its header is not what was written")
    needed = _BYTES[dtype] * int(np.prod(shape, dtype=object))
    return RowFile(path, kind, size - needed, shape, dtype, tuple(hashes), description,
                   record["sha256"])


def read_row(file: RowFile, row: int, *, verify: bool = True) -> np.ndarray:
    """Reads one row, and nothing else of its file.

    Args:
      file: as `open_rows` returns.
      row: in 0..R - 1.
      verify: whether to compare its bytes with their hash.

    Returns:
      [...] float32, one row.

    Raises:
      DDJaxError: of the type that the kind of file says; the row is damaged, or the file gone.
    """
    count = file.row_bytes
    # Opened anew for each row: an experts' folder may hold more files than a process may open.
    try:
        with open(file.path, "rb", buffering=0) as stream:
            stream.seek(file.offset + row * count)
            raw = stream.read(count)
    except OSError as error:
        raise _unreadable(file.path, file.format, error) from error
    if len(raw) != count:
        raise file.format.refused(file.path, f"is cut short in row {row}")
    if verify and hashlib.sha256(raw).hexdigest() != file.hashes[row]:
        raise file.format.refused(file.path, f"is damaged: row {row} is not what was written")
    if file.dtype == "bfloat16":  # the upper half of a float32
        found = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        found = np.frombuffer(raw, "<f4" if file.dtype == "float32" else "<f2").astype(np.float32)
    return found.reshape(file.shape[1:])


def encoded(row: np.ndarray, dtype: str) -> np.ndarray:
    """The bytes of a row in a file, [bytes] uint8."""
    if dtype == "bfloat16":
        import jax.numpy as jnp

        row = np.asarray(row, np.float32, order="C").astype(jnp.dtype("bfloat16"))
    else:
        row = np.asarray(row, "<f4" if dtype == "float32" else "<f2", order="C")
    return row.reshape(-1).view(np.uint8)


def _shape(value: Any, axes: int) -> tuple[int, ...] | None:
    good = isinstance(value, list) and len(value) == axes and all(
        type(side) is int and side > 0 for side in value)
    return tuple(value) if good else None


def _unreadable(path: pathlib.Path, kind: RowFormat, error: OSError) -> DDJaxError:
    return kind.error(f"{path} cannot be read ({error.strerror or error})",
                      fix="check the file and its permissions")
