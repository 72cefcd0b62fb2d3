"""The leaves of a state as a checkpoint: Orbax writes and reads them, here each one is hashed.

A checkpoint is a folder with the arrays under their tree paths and a manifest: what the leaves
are, with a SHA-256 each, whose run it is and what it was written with. The manifest has a hash of
itself. Orbax is imported inside the functions, because its import takes longer than a small run's
start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import CheckpointError, MissingPackageError
from dd_jax.run.identity import conditions
from dd_jax.run.jsonfile import read_json
from dd_jax.types import PyTree

FORMAT = 2


def fetched(state: PyTree) -> dict[str, np.ndarray]:
    """Copies a state off the device: {tree path: native contiguous host array}, in tree order.

    Raises:
      CheckpointError: a leaf is a random key, or no array of numbers.

    Example:
      >>> fetched({"x": [1.5]})
      {"['x'][0]": array(1.5)}
    """
    named = _named(state)
    arrays = {}
    for (name, leaf), value in zip(named, jax.device_get([leaf for _, leaf in named])):
        array = np.asarray(value, order="C")
        # Kind V with no fields covers bfloat16 and its relatives.
        if array.dtype.kind not in "biufcV" or array.dtype.names or array.dtype.name[:4] == "void":
            raise CheckpointError(
                f"the leaf {name or '(root)'} has type {type(leaf).__name__}, expected an array "
                "of numbers", fix="keep texts and objects out of the state")
        native = array.dtype.newbyteorder("=")
        arrays[name] = array if array.dtype.isnative else array.astype(native)
    return arrays


def build_manifest(
    step: int, arrays: Mapping[str, np.ndarray], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Describes a state: one entry per leaf, in tree order, and the conditions of its writing."""
    leaves = [[name, list(a.shape), a.dtype.name, _hash(a)] for name, a in arrays.items()]
    return sealed({"format": FORMAT, "step": step, "identity": identity,
                   "written_with": conditions(), "leaves": leaves})


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its hash of all the rest; this rule holds for every format."""
    rest = {k: v for k, v in manifest.items() if k != "sha256"}
    text = json.dumps(rest, sort_keys=True)
    return {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], manifest: dict[str, Any]) -> None:
    """Writes arrays and manifest beside `path` and renames the whole into place.

    Args:
      path: absolute path of the checkpoint folder; must not exist.
      arrays: what `fetched` returned.
      manifest: what `build_manifest` returned for them.
    """
    ocp = _orbax()
    items = {"manifest": ocp.args.JsonSave(manifest)}
    # Empty arrays are left to the manifest: Orbax refuses them.
    if full := {name: array for name, array in arrays.items() if array.size}:
        items["state"] = ocp.args.PyTreeSave(full)
    with _checkpointer() as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**items))


def flush(path: pathlib.Path) -> None:
    """Forces a finished checkpoint folder and its place in the parent folder onto the disk."""
    folders = [path.parent]
    for root, _, files in os.walk(path):
        folders.append(pathlib.Path(root))
        for name in files:
            _sync(os.path.join(root, name), os.O_RDONLY)
    for folder in folders:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            _sync(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))


def read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest of a checkpoint folder.

    Raises:
      ValueError: it is missing or damaged.
    """
    try:
        # Orbax's own reader has no limits, and its import would delay the refusal of a folder.
        manifest = read_json(path / "manifest" / "metadata")
    except FileNotFoundError:
        raise ValueError("its manifest is missing") from None
    except ValueError as error:
        raise ValueError(f"its manifest is damaged: {error}") from error
    if manifest.get("sha256") != sealed(manifest)["sha256"]:
        raise ValueError("its manifest does not match its own hash")
    return manifest


def read_arrays(path: pathlib.Path, manifest: Mapping[str, Any]) -> list[np.ndarray]:
    """Reads all leaves and compares their hashes; any exception means that one is damaged."""
    _refuse_odd_files(path)
    ocp = _orbax()
    full = {name: 0 for name, shape, _, _ in manifest["leaves"] if 0 not in shape}
    stored: Mapping[str, np.ndarray] = {}
    if full:
        how = ocp.args.PyTreeRestore(
            full, restore_args={k: ocp.RestoreArgs(restore_type=np.ndarray) for k in full})
        with _checkpointer() as checkpointer:
            stored = checkpointer.restore(path, args=ocp.args.Composite(state=how)).state
    arrays = []
    for name, shape, dtype, digest in manifest["leaves"]:
        array = stored[name] if name in full else np.zeros(shape, np.dtype(dtype))
        array = np.asarray(array, order="C")
        if (list(array.shape), array.dtype.name, _hash(array)) != (shape, dtype, digest):
            raise ValueError(f"the leaf {name or '(root)'} does not match its hash")
        arrays.append(array)
    return arrays


def _refuse_odd_files(path: pathlib.Path) -> None:
    """Raises ValueError for a link, pipe or device in a checkpoint: a reader may wait for ever."""
    for root, folders, files in os.walk(path):
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(root, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ValueError(f"{name} in it is not a regular file")


def check_fits(manifest: Mapping[str, Any], like: PyTree, *, where: str) -> None:
    """Raises CheckpointError naming the first leaf whose path, shape or dtype is not as in `like`.

    Args:
      manifest: of the stored state.
      like: a tree of arrays, numbers or `jax.ShapeDtypeStruct`.
      where: the checkpoint, for the message.
    """
    wanted = []
    for name, leaf in _named(like):
        shaped = leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)
        wanted.append([name, list(shaped.shape), np.dtype(shaped.dtype).name])
    found = [leaf[:3] for leaf in manifest["leaves"]]
    for a, b in itertools.zip_longest(found, wanted):
        if a != b:
            raise CheckpointError(
                f"the state in {where} is not the state of this run: found {_shown(a)}, "
                f"expected {_shown(b)}",
                fix="use the method, sizes and library version that wrote it, or another folder")


def like_leaf(array: np.ndarray, like: Any) -> Any:
    """Turns a stored array into what `like` is: a number, a NumPy array or a jax array."""
    if isinstance(like, (bool, int, float, complex)) and not isinstance(like, np.generic):
        return type(like)(array.item())
    if isinstance(like, np.generic):
        return array[()]
    if isinstance(like, np.ndarray):
        return array
    out = jnp.array(array)
    sharding = getattr(like, "sharding", None)
    # Only where it differs: placing an array commits it, which would cost a new compilation.
    return out if sharding is None or sharding == out.sharding else jax.device_put(out, sharding)


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    """[(tree path, leaf)]; refuses random keys."""
    named = [(jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(tree)]
    for name, leaf in named:
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            raise CheckpointError(f"the leaf {name or '(root)'} is a random key ({dtype})",
                                  fix="keep keys out of the state: fold the step into a base key")
    if len(dict(named)) < len(named):
        raise CheckpointError("two leaves of the state have the same path",
                              fix="give the children of its nodes different names")
    return named


def _hash(array: np.ndarray) -> str:
    # As bytes, because bfloat16 has no buffer of its own.
    return hashlib.sha256(array.reshape(-1).view(np.uint8)).hexdigest()


def _shown(leaf: Sequence[Any] | None) -> str:
    return "no further leaf" if leaf is None else f"{leaf[0] or '(root)'} {leaf[2]}{leaf[1]}"


def _sync(path: str | os.PathLike, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.cache
def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise MissingPackageError(f"orbax-checkpoint does not import ({error})",
                                  fix="install it with: pip install orbax-checkpoint") from error
    return ocp


@contextlib.contextmanager
def _checkpointer() -> Iterator[Any]:
    """A new checkpointer: after a failed save Orbax's threads hold half-finished work.

    Its log is held back: what goes wrong reaches the caller as an exception, once.
    """
    ocp, logger = _orbax(), logging.getLogger("absl")

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(
                state=ocp.PyTreeCheckpointHandler(), manifest=ocp.JsonCheckpointHandler())) as c:
            yield c
    finally:
        logger.removeFilter(drop)
