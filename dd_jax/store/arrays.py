"""Any tree of numeric arrays as one safetensors file with a card: teachers, banks, normalisers.

Names of tensors are the paths in the tree, so the file says what it holds to every reader.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dd_jax.errors import CheckpointError, DDJaxError, SetFileError
from dd_jax.store import container
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.envelope import MAX_DEPTH, plain
from dd_jax.types import PyTree

FORMAT, FORMAT_VERSION = "dd_jax.arrays", 1
MAX_TENSORS = 100_000
_ALONE = "."  # the name of a tree that is one array
_AGAIN = "delete the file and make it again"


def write_arrays(path: PathLike, arrays: PyTree, card: Mapping[str, Any]) -> pathlib.Path:
    """Writes a tree of arrays and what is to be said of them, whole or not at all.

    Args:
      path: the file; replaced if it exists.
      arrays: dicts with text keys, lists, tuples and NamedTuples of arrays: booleans, integers or
        floats of any width, bfloat16 among them.
      card: JSON-able.

    Returns:
      The path; equal content gives equal bytes.

    Raises:
      CheckpointError: a leaf that is no such array, two of one name, or a card that JSON cannot
        hold.
      SetFileError: the file cannot be written.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.safetensors"
      >>> tree = {"w": np.ones(2, np.float32), "n": (np.int32(3),)}
      >>> path = write_arrays(path, tree, {"kind": "x"})
      >>> read_arrays(path)["n"]
      {'0': array(3, dtype=int32)}
      >>> read_arrays(path, tree)["n"]
      (array(3, dtype=int32),)
      >>> read_card(path)
      {'kind': 'x'}
    """
    tensors = {}
    for name, leaf in _named(arrays):
        array = np.asarray(leaf) if _numeric(leaf) else None
        if array is None or array.dtype.name not in container.CODES:
            raise CheckpointError(
                f"{name!r} is a {type(leaf).__name__} of dtype "
                f"{getattr(leaf, 'dtype', 'unknown')}, expected an array of numbers",
                fix="store keys by jax.random.key_data, and settings in the card")
        tensors[name] = array
    record = {"format_version": FORMAT_VERSION, "card": plain(card, "card", error=CheckpointError)}
    blob = container.pack(tensors, record, kind=FORMAT)
    return write_atomically(path, lambda file: file.write(blob))


def read_arrays(
    path: PathLike, like: PyTree = None, *, max_bytes: int = container.MAX_FILE_BYTES
) -> PyTree:
    """Reads what `write_arrays` wrote, all of it checked.

    Args:
      path: the file.
      like: a tree of arrays or shapes (`jax.ShapeDtypeStruct`) of the same names, shapes and
        dtypes; None: take what there is.
      max_bytes: refuse longer files.

    Returns:
      NumPy arrays in the tree of `like`, else in nested dicts of names, where entry 0 of a tuple is
      called "0"; a tree of one array is that array.

    Raises:
      CheckpointError: the file is missing, damaged, foreign, of a newer release, or holds other
        arrays than `like`.
    """
    tensors, _ = _unpacked(path, max_bytes, read=True)
    if like is None:
        return _nested(path, tensors)
    wanted = _named(like)
    for name, leaf in wanted:
        if name not in tensors:
            raise _other(path, f"lacks {name!r}, it has {_short(tensors)}")
        found, asked = tensors[name], leaf if hasattr(leaf, "shape") else np.asarray(leaf)
        if (found.shape, found.dtype) != (tuple(asked.shape), np.dtype(asked.dtype)):
            raise _other(path, f"holds {name!r} as {found.dtype}{list(found.shape)}, expected "
                         f"{asked.dtype}{list(asked.shape)}")
    surplus = tensors.keys() - {name for name, _ in wanted}
    if surplus:
        raise _other(path, f"also holds {_short(surplus)}")
    return jax.tree.unflatten(jax.tree.structure(like), [tensors[name] for name, _ in wanted])


def read_card(path: PathLike, *, max_bytes: int = container.MAX_FILE_BYTES) -> dict[str, Any]:
    """Reads what a file of arrays says of itself, checked by its hash; touches no array.

    Raises:
      CheckpointError: as for `read_arrays`.
    """
    return _unpacked(path, max_bytes, read=False)[1]


def _unpacked(path: PathLike, max_bytes: int, *, read: bool) -> tuple[dict[str, Any], dict]:
    try:
        tensors, record = container.unpack(
            path, max_bytes=max_bytes, kind=FORMAT, dtypes=container.CODES,
            max_tensors=MAX_TENSORS, read=read)
        container.check_card(record)
        if record.get("format_version") != FORMAT_VERSION:
            raise SetFileError(f"has format version {str(record.get('format_version'))[:20]}, "
                               f"this release reads {FORMAT_VERSION}", fix="upgrade dd_jax")
        if read:
            container.check_hashes(tensors, record)
        if not isinstance(record.get("card"), dict):
            raise SetFileError("has no card", fix=_AGAIN)
    except SetFileError as error:
        fix = error.fix if "upgrade" in error.fix or "max_bytes" in error.fix else _AGAIN
        raise CheckpointError(f"{path} {error.message}", fix=fix) from error
    return tensors, record["card"]


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree by the names of their tensors."""
    found = []
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        parts = [jax.tree_util.keystr((key,), simple=True) for key in keys]
        if any("/" in part or part in ("", _ALONE) for part in parts):
            raise CheckpointError(f"a leaf is called {parts}, expected names without '/'",
                                  fix="rename the keys of the tree")
        found.append(("/".join(parts) or _ALONE, leaf))
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"two leaves are called {twice!r}", fix="rename the keys of the tree")
    return found


def _numeric(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return isinstance(leaf, (np.ndarray, np.generic, bool, int, float))


def _nested(path: PathLike, tensors: Mapping[str, np.ndarray]) -> PyTree:
    """Nested dicts of tensors whose names are sorted."""
    if set(tensors) == {_ALONE}:
        return tensors[_ALONE]
    whole: dict[str, Any] = {}
    for name, array in tensors.items():
        *folders, last = name.split("/")
        if len(folders) > MAX_DEPTH:
            raise _other(path, f"holds a name of {len(folders)} parts")
        place = whole
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                raise _other(path, f"holds {name!r} below another array")
        place[last] = array
    return whole


def _other(path: PathLike, problem: str) -> DDJaxError:
    return CheckpointError(f"{path} {problem}",
                           fix="read it with the tree it was written from, or make it again")


def _short(names: Any) -> str:
    return ", ".join(sorted(map(repr, names))[:5]) or "nothing"
