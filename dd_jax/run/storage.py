"""The disk side of a checkpoint: Orbax writes and reads the arrays and the manifest.

Orbax is imported inside the functions, because its import takes longer than a small run's start.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dd_jax.errors import MissingPackageError
from dd_jax.run import manifest as manifests


def write(
    path: pathlib.Path, leaves: Sequence[tuple[str, np.ndarray]], manifest: Mapping[str, Any]
) -> None:
    """Writes leaves and manifest beside `path` and renames the whole into place.

    Args:
      path: absolute path of the checkpoint folder; must not exist.
      leaves: (tree path, host array) in tree order.
      manifest: what `manifest.build` returned for the same leaves.
    """
    ocp = _orbax()
    # Named by number, so that no user's tree path reaches a file name. Empty arrays are left to
    # the manifest: Orbax refuses them.
    arrays = {_name(i): array for i, (_, array) in enumerate(leaves) if array.size}
    items = {"manifest": ocp.args.JsonSave(dict(manifest))}
    if arrays:
        items["state"] = ocp.args.PyTreeSave(arrays)
    with _quiet(), _checkpointer() as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**items))


def read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest of a checkpoint folder; any exception means that it is damaged."""
    ocp = _orbax()
    if not (path / "manifest").is_dir():
        raise ValueError("its manifest is missing")
    with _quiet(), _checkpointer() as checkpointer:
        restored = checkpointer.restore(
            path, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
    return manifests.check_whole(restored.manifest)


def read_arrays(path: pathlib.Path, manifest: Mapping[str, Any]) -> list[np.ndarray]:
    """Reads all leaves and compares their hashes; any exception means that one is damaged."""
    ocp = _orbax()
    entries = manifest["leaves"]
    stored = {_name(i): 0 for i, entry in enumerate(entries) if 0 not in entry["shape"]}
    arrays: Mapping[str, np.ndarray] = {}
    if stored:
        how = ocp.args.PyTreeRestore(
            stored, restore_args={k: ocp.RestoreArgs(restore_type=np.ndarray) for k in stored})
        with _quiet(), _checkpointer() as checkpointer:
            arrays = checkpointer.restore(path, args=ocp.args.Composite(state=how)).state
    leaves = []
    for i, entry in enumerate(entries):
        if _name(i) in stored:
            leaf = np.asarray(arrays[_name(i)], order="C")
        else:
            leaf = np.zeros(entry["shape"], np.dtype(entry["dtype"]))
        found = (list(leaf.shape), leaf.dtype.name, manifests.leaf_hash(leaf))
        if found != (entry["shape"], entry["dtype"], entry["sha256"]):
            raise ValueError(f"the leaf {entry['path'] or '(root)'} does not match its hash")
        leaves.append(leaf)
    return leaves


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


def _sync(path: str | os.PathLike, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(index: int) -> str:
    return f"leaf_{index:05d}"


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
    # A new one each time: after a failed save Orbax's background threads hold half-finished work.
    ocp = _orbax()
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(), manifest=ocp.JsonCheckpointHandler())
    checkpointer = ocp.Checkpointer(handler)
    try:
        yield checkpointer
    finally:
        checkpointer.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Holds back Orbax's log: what goes wrong reaches the caller as an exception, once."""
    logger = logging.getLogger("absl")

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
