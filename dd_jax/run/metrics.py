"""Metrics as JSON lines: valid whatever the numbers are, and equal byte for byte after a resume.

There is no clock here: a line holds only what the caller passes, so that two runs of one
configuration write the same file.
"""

from __future__ import annotations

import errno
import json
import math
import os
import pathlib
import stat
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from dd_jax.data.files import read_regular
from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.run.jsonfile import parsed
from dd_jax.store.atomic import write_atomically

_RESERVED = ("step", "non_finite")


class MetricsWriter:
    """Appends one JSON object per line, `{"step": ..., <names in alphabetical order>}`.

    NaN and infinities become null, and their names are listed under "non_finite". Each line is
    flushed. A last line that a kill left half-written is cut off on opening.

    Args:
      path: the file; made if missing. Its folder must exist.

    Raises:
      CheckpointError: the file cannot be opened or written, or is a link.

    Example:
      >>> import tempfile, os
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   path = os.path.join(folder, "metrics.jsonl")
      ...   with MetricsWriter(path) as metrics:
      ...     metrics.write(1, {"loss": 0.5, "norm": float("nan")})
      ...   print(open(path).read().strip())
      {"step": 1, "loss": 0.5, "norm": null, "non_finite": ["norm"]}
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        if self.path.is_symlink():  # made by somebody else, of a file that is not of this run
            raise CheckpointError(f"the metrics file {self.path} is a link",
                                  fix="remove the link, or use another folder")
        try:
            self._file = _opened(self.path)
            _cut_partial_line(self.path)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line.

        Args:
          step: the number of finished steps.
          values: numbers, texts, None, small arrays, and nested lists or dicts of these.

        Raises:
          ConfigError: a name is reserved or a value is none of these.
        """
        line = format_line(step, values)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise _unusable(self.path, error) from error

    def truncate_after(self, step: int) -> None:
        """Drops every line of a later step, so that a resumed run can write them again.

        Raises:
          SetFileError: the disk is full; the old lines stay.
        """
        kept = bytearray()
        for number, raw in enumerate(read_regular(self.path).split(b"\n")[:-1], 1):
            entry = _parsed(raw)
            if entry is None:
                warnings.warn(f"dropped line {number} of {self.path}: it is not a metrics line",
                              stacklevel=2)
            elif entry["step"] <= step:
                kept += raw + b"\n"
        self._file.close()
        # A new file renamed into place: a kill leaves the old lines or the new ones.
        write_atomically(self.path, lambda file: file.write(kept))
        try:
            self._file = _opened(self.path)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def format_line(step: int, values: Mapping[str, Any]) -> str:
    """Formats one metrics line as strict JSON, without the newline.

    Example:
      >>> format_line(2, {"loss": float("inf")})
      '{"step": 2, "loss": null, "non_finite": ["loss"]}'
    """
    entry: dict[str, Any] = {"step": int(step)}
    bad: list[str] = []
    for name in sorted(values, key=str):
        if str(name) in _RESERVED:
            raise ConfigError(f"a metric is called {name!r}, which is reserved",
                              fix="give it another name")
        entry[str(name)], finite = _plain(values[name], str(name))
        if not finite:
            bad.append(str(name))
    if bad:
        entry["non_finite"] = bad
    return json.dumps(entry, allow_nan=False)


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads a metrics file; a last line without its newline is still being written and is left.

    Returns:
      One dict per line, with "step"; non-finite numbers are None.

    Raises:
      CheckpointError: the file is missing, or a finished line is not a metrics line.

    Example:
      >>> import tempfile, os
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   path = os.path.join(folder, "metrics.jsonl")
      ...   with MetricsWriter(path) as metrics:
      ...     metrics.write(1, {"loss": 0.5})
      ...   read_metrics(path)
      [{'step': 1, 'loss': 0.5}]
    """
    try:
        raw = read_regular(path)
    except OSError as error:
        raise _unusable(pathlib.Path(path), error) from error
    return list(_entries(raw, path))


def _entries(raw: bytes, path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(raw.split(b"\n")[:-1], 1):
        entry = _parsed(line)
        if entry is None:
            raise CheckpointError(f"line {number} of {path} is not a metrics line: {line[:60]!r}",
                                  fix="remove the line, or continue the run, which drops it")
        yield entry


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = parsed(line)
    except ValueError:
        return None
    return entry if type(entry.get("step")) is int else None


def _plain(value: Any, name: str) -> tuple[Any, bool]:
    """(what JSON can hold, whether every number in it was finite)."""
    if isinstance(value, Mapping):
        parts = {str(k): _plain(value[k], name) for k in sorted(value, key=str)}
        return {k: v for k, (v, _) in parts.items()}, all(ok for _, ok in parts.values())
    if isinstance(value, (list, tuple)):
        items = [_plain(v, name) for v in value]
        return [v for v, _ in items], all(ok for _, ok in items)
    if value is None or isinstance(value, (bool, int, str)):
        return value, True
    if isinstance(value, float):
        return (float(value), True) if math.isfinite(value) else (None, False)
    array = np.asarray(value)
    if array.dtype.kind == "V" and array.dtype.names is None:  # bfloat16 and its relatives
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"the metric {name!r} is a {type(value).__name__}, expected numbers, "
                          "texts, or lists of these", fix="convert it before logging")
    return _plain(array.tolist(), name)


def _opened(path: pathlib.Path) -> BinaryIO:
    """The file, open for appending; a pipe would wait for a reader, a link lead elsewhere."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return open(descriptor, "ab")


def _cut_partial_line(path: pathlib.Path) -> None:
    raw = read_regular(path)
    whole = raw.rfind(b"\n") + 1
    if whole < len(raw):
        os.truncate(path, whole)


def _unusable(path: pathlib.Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"the metrics file {path} cannot be used ({error.strerror or error})",
                           fix="check the folder and the free space")
