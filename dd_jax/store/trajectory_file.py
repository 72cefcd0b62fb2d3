"""One expert's trajectory as one safetensors file, of which single rows can be read and trusted.

The file holds the tensor "parameters" [E + 1, P], F32 or BF16, and one metadata entry of sorted
JSON: what the expert is, a hash of each row and a hash of the entry itself. Written by hand, which
streams and gives equal bytes for equal content; any safetensors reader opens it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dd_jax.errors import (
    CheckpointError,
    ConfigError,
    DDJaxError,
    NonFiniteError,
    require_whole,
    unknown,
)
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.checks import plain
from dd_jax.store.container import MAX_HEADER_BYTES, canonical

FORMAT = "dd_jax.expert"
FORMAT_VERSION = 1
DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}  # name -> (of safetensors, bytes)
_ENTRY, _TENSOR = "dd_jax", "parameters"


class ExpertFile(NamedTuple):
    """A file whose header has been checked.

    Attributes:
      path: of the file.
      offset: [bytes] of the first row.
      rows: E + 1.
      parameters: P.
      dtype: "float32" or "bfloat16".
      hashes: SHA-256 of the bytes of each row.
      description: what the writer said about the expert.
    """

    path: pathlib.Path
    offset: int
    rows: int
    parameters: int
    dtype: str
    hashes: tuple[str, ...]
    description: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """All that must be equal among the experts of one folder."""
        return {**self.description, "dtype": self.dtype, "epochs": self.rows - 1}


def expert_name(index: int) -> str:
    """The file name of an expert: "expert_00003.safetensors"."""
    return f"expert_{index:05d}.safetensors"


def write_expert(
    folder: PathLike,
    index: int,
    trajectory: np.ndarray,
    *,
    description: Mapping[str, Any],
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes the trajectory of one expert, whole or not at all.

    Args:
      folder: made if missing.
      index: the expert's number; its file is replaced if it exists.
      trajectory: [E + 1, P] float, rows in the order of epochs.
      description: JSON-able, such as `store.trajectories.describe` returns.
      dtype: "float32", or "bfloat16" for half the bytes and three decimal digits.

    Returns:
      The path of the file.

    Raises:
      ConfigError: no trajectory, or an unknown dtype.
      NonFiniteError: the expert diverged; names the first epoch.
      SetFileError: the folder cannot be written.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> path = write_expert(folder, 0, np.zeros((3, 2), np.float32), description={})
      >>> read_row(open_expert(path), 2).tolist()
      [0.0, 0.0]
    """
    require_whole("index", index, least=0, example=0)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    array = np.asarray(trajectory)
    if array.ndim != 2 or len(array) < 2 or not array.shape[1]:
        raise ConfigError(f"the trajectory has shape {array.shape}, expected [E + 1, P] with E of "
                          "at least 1", fix="pass what train_expert returns")
    finite = np.array([np.isfinite(row).all() for row in array])
    if not finite.all():
        epoch = int(np.argmin(finite))
        raise NonFiniteError(f"expert {index} was not finite after epoch {epoch}",
                             fix="lower the experts' learning rate")
    rows = _encoded(array, dtype)
    record = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "dtype": dtype,
        "shape": list(array.shape), "description": plain(dict(description), "description"),
        "rows": [hashlib.sha256(row).hexdigest() for row in rows],
    }
    record["sha256"] = _record_hash(record)
    table = {"dtype": DTYPES[dtype][0], "shape": list(array.shape), "data_offsets": [0, rows.size]}
    header = canonical({"__metadata__": {_ENTRY: canonical(record)}, _TENSOR: table}).encode()
    header += b" " * (-len(header) % 8)

    def write(file):
        file.write(len(header).to_bytes(8, "little") + header)
        file.write(rows.reshape(-1))

    return write_atomically(pathlib.Path(folder) / expert_name(index), write)


def open_expert(path: PathLike) -> ExpertFile:
    """Reads and checks the header of an expert's file; touches no row.

    Args:
      path: a file that `write_expert` wrote.

    Returns:
      The `ExpertFile`.

    Raises:
      CheckpointError: cut short, damaged, foreign or of a newer release, with what to do.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            # Before anything is read by it: the number may be anything in a damaged file.
            if length > MAX_HEADER_BYTES:
                raise damaged(path, "is damaged, or not the file of an expert")
            if size < 8 + length or not length:
                raise damaged(path, f"is cut short: {size} bytes, less than its header")
            return _checked(path, file.read(length), size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})",
                              fix="check the file and its permissions") from error


def read_row(file: ExpertFile, row: int, *, verify: bool = True) -> np.ndarray:
    """Reads one row of a trajectory, and nothing else of its file.

    Args:
      file: as `open_expert` returns.
      row: in 0..E.
      verify: whether to compare its bytes with their hash.

    Returns:
      [P] float32.

    Raises:
      CheckpointError: the row is not there any more, or its bytes have changed.
    """
    count = file.parameters * DTYPES[file.dtype][1]
    # Not a memory map: reading one beyond the end of a file that was cut would kill the process.
    try:
        with open(file.path, "rb", buffering=0) as stream:
            stream.seek(file.offset + row * count)
            raw = stream.read(count)
    except OSError as error:
        raise CheckpointError(f"{file.path} cannot be read ({error.strerror or error})",
                              fix="check the file and its permissions") from error
    if len(raw) != count:
        raise damaged(file.path, f"is cut short in row {row}")
    if verify and hashlib.sha256(raw).hexdigest() != file.hashes[row]:
        raise damaged(file.path, f"is damaged: row {row} is not what was written")
    if file.dtype == "float32":
        return np.frombuffer(raw, "<f4").astype(np.float32)
    # A bfloat16 is the upper half of a float32.
    return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)


def damaged(path: pathlib.Path, problem: str) -> DDJaxError:
    """The error of a file that is not as it was written."""
    return CheckpointError(f"{path} {problem}",
                           fix=f"delete {path.name} and run the same command: the expert is "
                           "trained again")


def _checked(path: pathlib.Path, text: bytes, size: int) -> ExpertFile:
    try:
        header = json.loads(text.decode())
        record = json.loads(header["__metadata__"][_ENTRY])
        table, kind = header[_TENSOR], record["format"]
        # This rule holds for every version, so that damage is never taken for a newer release.
        whole = record["sha256"] == _record_hash(record)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, "is damaged: its header is not that of an expert") from error
    if kind != FORMAT or set(header) != {"__metadata__", _TENSOR}:
        raise damaged(path, "is not the file of an expert")
    if whole and record.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {record.get('format_version')!r}, this "
                              f"release reads {FORMAT_VERSION}", fix="upgrade dd_jax")
    try:
        rows, parameters = record["shape"]
        whole = whole and type(rows) is type(parameters) is int and rows > 1 and parameters > 0
        code, width = DTYPES[record["dtype"]]
        needed = rows * parameters * width
        whole = whole and table == {"dtype": code, "shape": [rows, parameters],
                                    "data_offsets": [0, needed]}
        hashes = tuple(record["rows"])
        whole = whole and len(hashes) == rows and isinstance(record["description"], dict)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, "is damaged: its header is not complete") from error
    if not whole:
        raise damaged(path, "is damaged: its header is not what was written")
    found = size - 8 - len(text)
    if found != needed:
        state = "is cut short" if found < needed else "is too long"
        raise damaged(path, f"{state}: {rows} rows of {parameters} parameters need {needed} bytes, "
                      f"{found} are there")
    return ExpertFile(path, 8 + len(text), rows, parameters, record["dtype"], hashes,
                      record["description"])


def _record_hash(record: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(canonical(rest).encode()).hexdigest()


def _encoded(array: np.ndarray, dtype: str) -> np.ndarray:
    """[E + 1, bytes of a row] uint8."""
    if dtype == "bfloat16":
        import jax.numpy as jnp

        array = np.ascontiguousarray(array, np.float32).astype(jnp.dtype("bfloat16"))
    else:
        array = np.ascontiguousarray(array, "<f4")
    return array.view(np.uint8)
