"""Stored views and their labels as one safetensors file whose batches are each checked by a hash.

The tensors are those of `labels.store_settings.StorePlan.shapes`: the first axis of labels and
draws are batches. The card holds a hash for each batch, over its rows of all tensors, one of what
all share, and its own, so a header that was checked vouches for every byte, and damage is named by
its batch. Written by hand, in one pass over parts that need not fit in memory together.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from dd_jax.errors import SetFileError
from dd_jax.labels.codecs.codec import Shapes, size_of
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.container import CARD_KEY, CODES, open_tensors, read_card
from dd_jax.store.envelope import canonical, header_hash, plain

FORMAT, FORMAT_VERSION = "dd_jax.views", 1
SHARED = "shared."  # begins the names of tensors without an axis of batches
_HASH = "0" * 64
_AGAIN = "copy it again, or write it again with dd_jax.run.relabel"
Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ViewStore:
    """A file of views and labels whose header has been checked; `read_views` reads the rest.

    Attributes:
      path: of the file.
      description: JSON-able, what the writer said: set, teachers, views, codec, key.
      shapes: name -> shape and dtype of every tensor.
      hashes: SHA-256 of each batch.
      shared_hash: SHA-256 of what all labels share.
      sha256: of the card, which holds the hashes.
      header_bytes: of the file before its first tensor.
    """

    path: pathlib.Path
    description: Mapping[str, Any]
    shapes: Shapes
    hashes: tuple[str, ...]
    shared_hash: str
    sha256: str
    header_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes of labels and draws, those of the file without its header."""
        return size_of(self.shapes)


def write_views(
    path: PathLike,
    shapes: Shapes,
    parts: Iterable[Arrays],
    shared: Arrays,
    description: Mapping[str, Any],
) -> pathlib.Path:
    """Writes batches as they come, whole or not at all; equal content gives equal bytes.

    Args:
      path: of the file.
      shapes: name -> shape and dtype of every tensor.
      parts: name -> [n, ...] of the next n batches, part after part, in the dtypes of `shapes`.
      shared: name -> what all labels share.
      description: JSON-able.

    Returns:
      The path.

    Raises:
      SetFileError: parts of other shapes or numbers, a description that JSON cannot hold, or a file
        that cannot be written.
    """
    rows = {name: s for name, s in shapes.items() if not name.startswith(SHARED)}
    batches = {s.shape[0] for s in rows.values()}
    if len(batches) != 1:
        raise SetFileError(f"tensors have {sorted(batches)} batches", fix="give all as many")
    count, offsets = batches.pop(), _offsets(shapes)

    def header(hashes: list[str], shared_hash: str) -> bytes:
        kinds = {n: (CODES[np.dtype(s.dtype).name], list(s.shape)) for n, s in shapes.items()}
        record = {
            "format": FORMAT, "format_version": FORMAT_VERSION,
            "shapes": {name: list(kind) for name, kind in kinds.items()},
            "description": plain(dict(description), "description"), "batches": hashes,
            "shared": shared_hash}
        record["sha256"] = header_hash(record)
        table = {name: {"dtype": code, "shape": shape, "data_offsets": list(offsets[name])}
                 for name, (code, shape) in kinds.items()}
        text = canonical({"__metadata__": {CARD_KEY: canonical(record)}, **table}).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def write(file: BinaryIO) -> None:
        start = len(header([_HASH] * count, _HASH))
        hashes: list[str] = []
        for part in parts:
            _put(file, start, offsets, {n: _checked(part, n, s, len(hashes)) for n, s in
                                        rows.items()}, rows, len(hashes))
            hashes += _hashes({name: part[name] for name in rows})
        if len(hashes) != count:
            raise SetFileError(f"{len(hashes)} batches came, expected {count}",
                               fix="give every batch once")
        fixed = {name: np.ascontiguousarray(shared[name.removeprefix(SHARED)], s.dtype)
                 for name, s in shapes.items() if name.startswith(SHARED)}
        _put(file, start, offsets, fixed, fixed, 0)
        file.seek(0)
        file.write(header(hashes, _shared_hash(fixed)))

    return write_atomically(path, write)


def open_views(path: PathLike) -> ViewStore:
    """Reads and checks the header of a file of views; touches no batch.

    Args:
      path: a file that `write_views` wrote.

    Returns:
      The `ViewStore`.

    Raises:
      SetFileError: missing, cut short, damaged, foreign or of a newer release, with what to do.
    """
    path = pathlib.Path(path)
    try:
        size = os.stat(path).st_size if path.is_file() else 0
        with open_tensors(path, max_bytes=size) as file:
            record = read_card(file, FORMAT)
            tables = {name: [file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()]
                      for name in file.keys()}
    except SetFileError as error:
        raise SetFileError(f"{path} is not a whole file of stored views: it {error.message}",
                           fix=_AGAIN) from error
    whole = record.get("sha256") == header_hash(record)
    if whole and record.get("format_version") != FORMAT_VERSION:
        raise SetFileError(f"{path} has format version {str(record.get('format_version'))[:20]}, "
                           f"this release reads {FORMAT_VERSION}", fix="upgrade dd_jax")
    hashes, description = record.get("batches"), record.get("description")
    names = {code: name for name, code in CODES.items()}
    known = all(code in names for code, _ in tables.values())
    if (not whole or not known or tables != record.get("shapes")
            or not isinstance(description, dict) or not isinstance(hashes, list)):
        raise SetFileError(f"{path} is damaged: its header is not what was written", fix=_AGAIN)
    shapes = {name: _shape(sides, names[code]) for name, (code, sides) in tables.items()}
    if any(s.shape[:1] != (len(hashes),) for n, s in shapes.items() if not n.startswith(SHARED)):
        raise SetFileError(f"{path} is damaged: it does not have as many hashes as batches",
                           fix=_AGAIN)
    return ViewStore(path, description, shapes, tuple(hashes), str(record.get("shared")),
                     record["sha256"], size - size_of(shapes))


def read_views(store: ViewStore) -> dict[str, np.ndarray]:
    """Reads all tensors, and compares every batch with its hash.

    Returns:
      Name -> array.

    Raises:
      SetFileError: the file is gone or another one, or a batch is damaged; says which.
    """
    if open_views(store.path).sha256 != store.sha256:
        raise SetFileError(f"{store.path} is not the file that was opened", fix="open it again")
    with open_tensors(store.path, max_bytes=os.stat(store.path).st_size) as file:
        arrays = {name: file.get_tensor(name) for name in store.shapes}
    found = _hashes({n: a for n, a in arrays.items() if not n.startswith(SHARED)})
    for batch, (now, then) in enumerate(zip(found, store.hashes)):
        if now != then:
            raise SetFileError(f"{store.path} is damaged: batch {batch} of {len(found)} is not "
                               "what was written", fix=_AGAIN)
    if _shared_hash({n: a for n, a in arrays.items() if n.startswith(SHARED)}) != store.shared_hash:
        raise SetFileError(f"{store.path} is damaged: what all its labels share is not what was "
                           "written", fix=_AGAIN)
    return arrays


def _order(shapes: Shapes) -> list[str]:
    """Names as their tensors lie in the file: wide numbers first, so that all are aligned."""
    return sorted(shapes, key=lambda name: (-np.dtype(shapes[name].dtype).itemsize, name))


def _offsets(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Name -> first byte, and that after the last."""
    places, start = {}, 0
    for name in _order(shapes):
        end = start + size_of({name: shapes[name]})
        places[name], start = (start, end), end
    return places


def _put(file: BinaryIO, start: int, offsets: Mapping[str, tuple[int, int]], arrays: Arrays,
         shapes: Mapping[str, Any], first: int) -> None:
    """Writes rows of tensors, from row `first` on, where they belong."""
    for name, array in arrays.items():
        row = math.prod(shapes[name].shape[1:]) * np.dtype(array.dtype).itemsize
        file.seek(start + offsets[name][0] + first * row)
        file.write(array.reshape(-1).view(np.uint8).data)


def _checked(part: Arrays, name: str, like: Any, first: int) -> np.ndarray:
    array = np.asarray(part[name])
    good = array.shape[1:] == like.shape[1:] and first + len(array) <= like.shape[0]
    if array.dtype != like.dtype or not good:
        raise SetFileError(f"{name} comes as {array.dtype}{list(array.shape)} for batches from "
                           f"{first} on, expected {like.dtype}{list(like.shape)} in all",
                           fix="write what the plan of the store says")
    return np.ascontiguousarray(array)


def _hashes(arrays: Arrays) -> list[str]:
    """SHA-256 of each batch, over its rows of all tensors by name."""
    names = sorted(arrays)
    found = []
    for batch in range(len(arrays[names[0]])):
        digest = hashlib.sha256()
        for name in names:
            digest.update(np.ascontiguousarray(arrays[name][batch]).reshape(-1).view(np.uint8))
        found.append(digest.hexdigest())
    return found


def _shared_hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _shape(sides: list[int], dtype: str) -> Any:
    import jax

    return jax.ShapeDtypeStruct(tuple(sides), np.dtype(dtype))
