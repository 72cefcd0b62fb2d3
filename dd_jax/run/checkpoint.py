"""Checkpoints of a run: atomic saves, a hash of every leaf, and a strict owner.

Orbax's `Checkpointer` writes, finalises and reads a checkpoint. Its `CheckpointManager` is not
used for the rest, because it breaks two promises: it remembers the list of steps, where here disk
alone decides which checkpoint is the newest whole one; and it deletes old steps inside the save,
before anybody has read the new one back. So these few lines are by hand: listing the folder,
setting damaged steps aside, and dropping old steps once the new one is verified.
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
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import jax
import numpy as np

from dd_jax.errors import CheckpointError, MissingPackageError, printable, require_whole
from dd_jax.run import leaves as disk
from dd_jax.run.identity import check_identity, full_identity, warn_of_other_conditions
from dd_jax.types import PyTree

_STEP = re.compile(r"step_(\d{8,})")
# What a killed save of Orbax leaves, and a killed removal of ours.
_RUBBLE = re.compile(r"step_\d{8,}\.(orbax-checkpoint-tmp.*|dropped)")


class Checkpoints:
    """The checkpoints of one run in one folder.

    Every save is synchronous and atomic: a kill at any instant leaves the previous checkpoint
    loadable. Nothing is remembered about what is on disk; each call lists the folder again.

    Args:
      folder: where the checkpoints live; made by the first save.
      identity: plain nested values that say which run this is (the configuration). The switches
        of JAX that change numbers are added. A folder written under another identity is refused.
      keep: how many steps to keep, at least 1.

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
    ):
        require_whole("keep", keep, example=2)
        self.folder = pathlib.Path(folder).absolute()
        self.identity = full_identity(identity)
        self.keep = keep
        self.skipped: list[tuple[int, str]] = []
        self._mine: set[int] = set()  # steps whose owner has been checked
        self._damaged: set[int] = set()  # steps to set aside at the next save

    def steps(self) -> list[int]:
        """Lists the steps that are on disk now, ascending, whether or not they can be read."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(int(match[1]) for path in found if (match := _STEP.fullmatch(path.name))
                      and path.is_dir() and not path.is_symlink())

    def save(self, step: int, state: PyTree) -> None:
        """Saves `state` as the newest checkpoint, reads it back, then drops the oldest ones.

        Args:
          step: the number of finished outer steps, 0 or more, later than every step stored.
          state: a pytree of arrays and numbers of any dtype but a key; fetched to the host.

        Raises:
          CheckpointError: the folder belongs to another run or is not behind `step`, a leaf is not
            an array, or the disk is full; the older checkpoints are then untouched.
        """
        if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < 0:
            raise CheckpointError(f"step is {step!r}, expected an integer of at least 0",
                                  fix="pass the number of finished steps")
        step, arrays = int(step), disk.fetched(state)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.check_owner(before=step)
            self._clear_rubble()
            path = self._path(step)
            disk.write(path, arrays, disk.build_manifest(step, arrays, self.identity))
            self._damaged.add(step)  # until read back: the old ones are dropped on its word
            disk.read_arrays(path, disk.read_manifest(path))
            self._damaged.discard(step)
            self._mine.add(step)
            disk.flush(path)
            self._prune()
        except (CheckpointError, MissingPackageError, MemoryError):
            raise
        except Exception as error:
            raise self._save_failed(step, arrays, error) from error

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
        steps = self.steps()
        for step in reversed(steps):
            with self._skipping(step):
                path, manifest = self._path(step), self._checked_manifest(step)
                disk.check_fits(manifest, like, where=str(path))
                arrays = disk.read_arrays(path, manifest)
                warn_of_other_conditions(manifest["written_with"])
                self._mine.update(steps)
                wanted, treedef = jax.tree_util.tree_flatten(like)
                return step, treedef.unflatten(map(disk.like_leaf, arrays, wanted))
        if steps:
            warnings.warn(f"none of the {len(steps)} checkpoints in {self.folder} can be used; "
                          "starting from the beginning", stacklevel=2)
        return None

    def check_owner(self, *, before: int = sys.maxsize) -> None:
        """Refuses the folder of another run, before anything is computed for it.

        Args:
          before: the step that is going to be saved.

        Raises:
          CheckpointError: a readable checkpoint has another identity, or is not before that step.
        """
        self.skipped = []
        for step in reversed(self.steps()):
            if step not in self._mine | self._damaged:
                with self._skipping(step):
                    self._checked_manifest(step)
                    self._mine.add(step)
            if step >= before and step not in self._damaged:
                raise CheckpointError(
                    f"{self.folder} already holds step {step}, not earlier than step {before}",
                    fix="restore before saving, or use an empty folder for a new run")

    def _checked_manifest(self, step: int) -> dict[str, Any]:
        manifest = disk.read_manifest(self._path(step))
        if manifest.get("format") != disk.FORMAT:
            raise CheckpointError(
                f"{self.folder} was written in checkpoint format {manifest.get('format')!r}, this "
                f"release reads {disk.FORMAT}",
                fix="use the release that wrote it (upgrade dd_jax if that is newer), or another "
                    "folder")
        check_identity(manifest["identity"], self.identity, where=str(self.folder))
        return manifest

    @contextlib.contextmanager
    def _skipping(self, step: int) -> Iterator[None]:
        """Turns whatever a damaged checkpoint raises into a note and a warning."""
        try:
            yield
        except (CheckpointError, MissingPackageError, MemoryError):
            raise
        except Exception as error:
            reason = _first_line(error)
            self.skipped.append((step, reason))
            self._damaged.add(step)
            warnings.warn(f"skipped the checkpoint of step {step} in {self.folder}: {reason}",
                          stacklevel=4)

    def _path(self, step: int) -> pathlib.Path:
        return self.folder / f"step_{step:08d}"

    def _clear_rubble(self) -> None:
        """Removes what killed saves and removals left and sets damaged checkpoints aside."""
        for path in self.folder.iterdir():
            if _RUBBLE.fullmatch(path.name):
                if path.is_symlink():  # not by us; the next save would write where it leads
                    path.unlink()
                shutil.rmtree(path, ignore_errors=True)
        for path in map(self._path, self._damaged):
            if path.exists():  # renamed, not deleted: a reader's fault is not proof of bad data
                free = (path.with_name(f"{path.name}.damaged-{i}") for i in itertools.count())
                path.rename(next(target for target in free if not target.exists()))
        self._damaged.clear()

    def _prune(self) -> None:
        for step in self.steps()[:-self.keep]:
            # Renamed first: a kill in the middle of the removal leaves no half step behind.
            dropped = self._path(step).rename(self._path(step).with_suffix(".dropped"))
            shutil.rmtree(dropped, ignore_errors=True)

    def _save_failed(
        self, step: int, arrays: Mapping[str, np.ndarray], error: Exception
    ) -> CheckpointError:
        with contextlib.suppress(OSError):
            self._clear_rubble()
        needed = sum(array.nbytes for array in arrays.values())
        try:
            free = f"{shutil.disk_usage(self.folder).free} bytes are free"
        except OSError:
            free = "the free space is unknown"
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        return CheckpointError(
            f"step {step} could not be saved in {self.folder}: it needs about {needed} bytes, "
            f"{free} ({_first_line(error)})",
            fix=("free some space" if full else "check the folder")
            + " and run again; the older checkpoints are intact")


def _first_line(error: Exception) -> str:
    return printable((str(error) or type(error).__name__).splitlines()[0], most=300)
