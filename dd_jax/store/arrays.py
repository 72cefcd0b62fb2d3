"""Any tree of numeric arrays as one safetensors file with a JSON card, hashed and atomic."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import CheckpointError
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.container import canonical
from dd_jax.types import PyTree

_CARD = "dd_jax"


def write_arrays(path: PathLike, tree: PyTree, card: Mapping[str, Any]) -> pathlib.Path:
    """Writes a tree of arrays, whole or not at all; names are the paths in the tree."""
    import safetensors.numpy

    named = {jax.tree_util.keystr(p, simple=True, separator="/") or "value":
             np.array(x, order="C") for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    text = canonical({**card, "sha256": _hash(named)})
    blob = safetensors.numpy.save(named, metadata={_CARD: text})
    return write_atomically(path, lambda file: file.write(blob))


def read_arrays(
    path: PathLike, like: PyTree | None, *, card: dict[str, Any] | None = None
) -> PyTree:
    """Reads what `write_arrays` wrote into a tree like `like`, checking shapes, dtypes and hash.

    Raises:
      CheckpointError: the file is missing, damaged or holds another tree.
    """
    import safetensors

    fix = "make it again"
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            found = json.loads(file.metadata()[_CARD])
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # whatever a damaged file makes the reader say
        raise CheckpointError(f"{path} is damaged ({type(error).__name__})", fix=fix) from error
    if found.get("sha256") != _hash(named):
        raise CheckpointError(f"{path} is damaged: its arrays do not match their hash", fix=fix)
    if card is not None:
        card.update(found)
    if like is None:
        return named
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(p, simple=True, separator="/") or "value" for p, _ in leaves]
    held = {n: (a.shape, a.dtype.name) for n, a in named.items()}
    wanted = {n: (tuple(x.shape), np.dtype(x.dtype).name) for n, (_, x) in zip(names, leaves)}
    if held != wanted:
        raise CheckpointError(f"{path} holds other arrays than asked for", fix=fix)
    return jax.tree.unflatten(tree, [jnp.asarray(named[name]) for name in names])


def _hash(named: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(named):
        array = np.ascontiguousarray(named[name])
        digest.update(canonical([name, array.dtype.name, list(array.shape)]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
