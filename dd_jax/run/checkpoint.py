"""Checkpoints of a run: atomic saves, a hash of every leaf, and a strict owner.

Orbax writes and reads the arrays; this module adds what it leaves open: a manifest with a SHA-256
of each leaf, the identity of the run that wrote it, and the rule that disk alone decides which
checkpoint is the newest usable one.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import CheckpointError, ConfigError, MissingPackageError, require_whole
from dd_jax.run import manifest as manifests
from dd_jax.run import storage
from dd_jax.types import PyTree

FREE_FIELDS = ("steps", "log_every", "save_every", "folder")

# A second number marks a step that was saved again; the older copy goes once the new one is good.
_STEP = re.compile(r"step_(\d{8,})(?:-(\d+))?")
_TEMPORARY = re.compile(r"step_\d{8,}(?:-\d+)?\.orbax-checkpoint-tmp.*")


class _Stored(NamedTuple):
    """A finished checkpoint folder as found on disk; ordered by step, then by attempt."""

    step: int
    attempt: int
    path: pathlib.Path


class Checkpoints:
    """The checkpoints of one run in one folder.

    Every save is synchronous and atomic: a kill at any instant leaves the previous checkpoint
    loadable. Nothing is remembered about what is on disk; each call lists the folder again.

    Args:
      folder: where the checkpoints live; made by the first save.
      identity: plain nested values that say which run this is (the configuration). A folder
        written under another identity is refused.
      keep: how many steps to keep, at least 1.
      free_fields: names of identity fields (nested ones with dots) that may differ.

    Attributes:
      skipped: [(step, reason)] of the checkpoints that the last call could not use.

    Raises:
      ConfigError: `keep` is below 1 or `identity` holds a value that JSON cannot.

    Example:
      >>> import tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   checkpoints = Checkpoints(folder, identity={"seed": 0})
      ...   checkpoints.save(3, {"x": np.arange(2)})
      ...   checkpoints.restore({"x": np.zeros(2, int)})
      (3, {'x': array([0, 1])})
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        identity: Mapping[str, Any],
        keep: int = 2,
        free_fields: Sequence[str] = FREE_FIELDS,
    ):
        require_whole("keep", keep, example=2)
        if isinstance(free_fields, str):
            raise ConfigError(f"free_fields is the text {free_fields!r}, expected a tuple of names",
                              fix=f"pass free_fields=({free_fields!r},)")
        self.folder = pathlib.Path(folder).absolute()
        self.identity = manifests.plain(identity)
        self.keep = keep
        self.free_fields = tuple(free_fields)
        self.skipped: list[tuple[int, str]] = []
        self._mine: set[str] = set()  # folders whose owner has been checked
        self._damaged: dict[str, pathlib.Path] = {}  # folders to set aside at the next save

    def steps(self) -> list[int]:
        """Lists the steps that are on disk now, ascending, whether or not they can be read."""
        return sorted({stored.step for stored in self._listed()})

    def save(self, step: int, state: PyTree) -> None:
        """Saves `state` as the newest checkpoint, reads it back, then drops the oldest ones.

        Args:
          step: the number of finished outer steps, 0 or more, not below a step already stored.
          state: a pytree of arrays and numbers of any dtype but a key; fetched to the host.

        Raises:
          CheckpointError: the folder belongs to another run or is ahead of `step`, a leaf is not
            an array, or the disk is full; the older checkpoints are then untouched.
        """
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
            raise CheckpointError(f"step is {step!r}, expected an integer of at least 0",
                                  fix="pass the number of finished steps")
        leaves = _fetched(state)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._check_owner(step)
            self._clear_rubble()
            attempt = 1 + max((s.attempt for s in self._listed() if s.step == step), default=-1)
            name = f"step_{step:08d}" + (f"-{attempt}" if attempt else "")
            stored = _Stored(int(step), attempt, self.folder / name)
            storage.write(stored.path, leaves, manifests.build(int(step), leaves, self.identity))
            self._verify(stored)
            storage.flush(stored.path)
            self._mine.add(name)
            self._prune()
        except (CheckpointError, MissingPackageError, MemoryError):
            raise
        except Exception as error:
            raise self._save_failed(step, leaves, error) from error

    def restore(self, like: PyTree) -> Optional[tuple[int, PyTree]]:
        """Loads the newest checkpoint that is whole.

        Args:
          like: a pytree of arrays or `jax.ShapeDtypeStruct` with the wanted tree, shapes and
            dtypes. Leaves come back as what `like` holds: NumPy arrays for NumPy arrays, numbers
            for Python numbers, jax arrays (with the sharding of `like`) otherwise.

        Returns:
          (step, state), or None where no usable checkpoint is on disk. Damaged ones are skipped
          with a warning and listed in `skipped`.

        Raises:
          CheckpointError: the newest readable checkpoint belongs to another run, comes from a
            newer release, or does not have the tree, shapes and dtypes of `like`.
        """
        self.skipped = []
        listed = self._listed()
        wanted, treedef = _described(like)
        for stored in listed:
            arrays = self._read(stored, wanted)
            if arrays is not None:
                self._mine.update(s.path.name for s in listed)
                leaves = [_as_like(a, leaf.like) for a, leaf in zip(arrays, wanted)]
                return stored.step, jax.tree_util.tree_unflatten(treedef, leaves)
        if listed:
            warnings.warn(f"none of the {len(listed)} checkpoints in {self.folder} can be used; "
                          "starting from the beginning", stacklevel=2)
        return None

    def _read(self, stored: _Stored, wanted: Sequence[_Wanted]) -> Optional[list[np.ndarray]]:
        with self._skipping(stored):
            manifest = storage.read_manifest(stored.path)
            self._check_manifest(manifest)
            manifests.check_leaves(manifest["leaves"], [leaf[:3] for leaf in wanted],
                                   where=str(stored.path))
            arrays = storage.read_arrays(stored.path, manifest)
            manifests.warn_of_other_versions(manifest)
            return arrays
        return None

    @contextlib.contextmanager
    def _skipping(self, stored: _Stored) -> Iterator[None]:
        """Turns whatever a damaged checkpoint raises into a note and a warning."""
        try:
            yield
        except (CheckpointError, MissingPackageError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0][:300]
            self.skipped.append((stored.step, reason))
            self._damaged[stored.path.name] = stored.path
            warnings.warn(f"skipped the checkpoint of step {stored.step} in {self.folder}: "
                          f"{reason}", stacklevel=4)

    def _check_manifest(self, manifest: Mapping[str, Any]) -> None:
        manifests.check_format(manifest, where=str(self.folder))
        manifests.check_identity(manifest["identity"], self.identity,
                                 free_fields=self.free_fields, where=str(self.folder))

    def check_owner(self) -> None:
        """Refuses the folder of another run, before anything is computed for it.

        Raises:
          CheckpointError: a readable checkpoint has another identity.
        """
        self._check_owner(sys.maxsize)

    def _check_owner(self, step: int) -> None:
        """Refuses to write beside another run's checkpoints or behind a later step."""
        self.skipped = []
        for stored in self._listed():
            name = stored.path.name
            if name not in self._mine and name not in self._damaged:
                with self._skipping(stored):
                    self._check_manifest(storage.read_manifest(stored.path))
                    self._mine.add(name)
            if stored.step > step and name not in self._damaged:
                raise CheckpointError(
                    f"{self.folder} already holds step {stored.step}, later than step {step}",
                    fix="restore before saving, or use an empty folder for a new run")

    def _clear_rubble(self) -> None:
        """Removes the temporary folders of killed saves and sets damaged checkpoints aside."""
        for path in self.folder.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        for name, path in list(self._damaged.items()):
            if path.exists():  # renamed, not deleted: a reader's fault is not proof of bad data
                free = (path.with_name(f"{name}.damaged-{i}") for i in itertools.count())
                path.rename(next(target for target in free if not target.exists()))
            del self._damaged[name]

    def _listed(self) -> list[_Stored]:
        """Finished checkpoint folders on disk, newest first."""
        found = []
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                match = _STEP.fullmatch(path.name)
                if match and path.is_dir():
                    found.append(_Stored(int(match[1]), int(match[2] or 0), path))
        return sorted(found, reverse=True)

    def _verify(self, stored: _Stored) -> None:
        """Reads the new checkpoint back, because the old ones are dropped on its word."""
        try:
            storage.read_arrays(stored.path, storage.read_manifest(stored.path))
        except Exception:
            self._damaged[stored.path.name] = stored.path
            raise

    def _prune(self) -> None:
        kept: set[int] = set()
        for stored in self._listed():
            if stored.step in kept or len(kept) == self.keep:
                shutil.rmtree(stored.path, ignore_errors=True)
            kept.add(stored.step)

    def _save_failed(self, step: int, leaves: Sequence[tuple], error: Exception) -> CheckpointError:
        with contextlib.suppress(OSError):
            self._clear_rubble()
        needed = sum(array.nbytes for _, array in leaves)
        try:
            free = f"{shutil.disk_usage(self.folder).free} bytes are free"
        except OSError:
            free = "the free space is unknown"
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        return CheckpointError(
            f"step {step} could not be saved in {self.folder}: it needs about {needed} bytes, "
            f"{free} ({(str(error) or type(error).__name__).splitlines()[0][:300]})",
            fix="free some space and run again; the older checkpoints are intact" if full
            else "check the folder and run again; the older checkpoints are intact")


class _Wanted(NamedTuple):
    path: str
    shape: tuple[int, ...]
    dtype: str
    like: Any


def _described(like: PyTree) -> tuple[list[_Wanted], Any]:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    wanted = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        _refuse_key(name, leaf)
        meta = leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)
        wanted.append(_Wanted(name, tuple(meta.shape), np.dtype(meta.dtype).name, leaf))
    return wanted, treedef


def _refuse_key(name: str, leaf: Any) -> None:
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise CheckpointError(f"the leaf {name or '(root)'} is a random key ({dtype})",
                              fix="keep keys out of the state: fold the step into a base key")


def _fetched(state: PyTree) -> list[tuple[str, np.ndarray]]:
    """[(tree path, native contiguous host array)] of a state, copied off the device."""
    named = [(jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(state)]
    for name, leaf in named:
        _refuse_key(name, leaf)
    fetched = []
    for (name, _), leaf in zip(named, jax.device_get([leaf for _, leaf in named])):
        array = np.asarray(leaf, order="C")
        # Kind V with no fields covers bfloat16 and its relatives.
        if array.dtype.kind not in "biufcV" or array.dtype.names or array.dtype.name[:4] == "void":
            raise CheckpointError(
                f"the leaf {name or '(root)'} has type {type(leaf).__name__}, expected an array "
                "of numbers", fix="keep texts and objects out of the state")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        fetched.append((name, array))
    return fetched


def _as_like(array: np.ndarray, like: Any) -> Any:
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
