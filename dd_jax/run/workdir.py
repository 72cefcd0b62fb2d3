"""The folder of a run: owner, lock, checkpoints, metrics and time; or nothing without a folder."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from dd_jax.errors import CheckpointError, SetFileError
from dd_jax.run.checkpoint import Checkpoints
from dd_jax.run.identity import check_identity, full_identity
from dd_jax.run.jsonfile import read_json, write_json
from dd_jax.run.lock import LOCK_NAME, OWNER_NAME, RunLock, prepare_folder
from dd_jax.run.metrics import MetricsWriter, format_line
from dd_jax.store.envelope import plain
from dd_jax.types import PyTree
from dd_jax.versions import versions

_RUN = "run.json"
_SECONDS = "seconds.json"
_FAILURE = "non_finite.json"
_SET = "set.safetensors"
_MOST_SECONDS = 1e12


def claim(folder: str | os.PathLike, identity: Mapping[str, Any]) -> pathlib.Path:
    """Makes a folder that of one run, or refuses it unchanged if it is that of another.

    The identity stands in run.json and is compared with it, and with that of checkpoints. A folder
    in which a run has left nothing but its claim is free for another.

    Args:
      folder: made if missing.
      identity: plain nested values that say which run this is.

    Returns:
      The absolute path of the folder.

    Raises:
      ConfigError: the folder cannot be made or written.
      CheckpointError: it belongs to another run, all differences named, or is in use.

    Example:
      >>> import tempfile
      >>> claim(tempfile.mkdtemp() + "/run", {"method": "dm", "stages": 3}).name
      'run'
    """
    path = prepare_folder(folder)
    with RunLock(path):
        _claim(path, identity)
    return path


def inner_folder(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a folder inside a run's own, such as that of a stage.

    Raises:
      CheckpointError: it is a link, which may lead out of the run's folder.
    """
    path = pathlib.Path(folder) / name
    if path.is_symlink():
        raise CheckpointError(f"{path} is a link, expected a folder of the run's own",
                              fix="remove the link, or use another folder")
    return path


def owner(folder: pathlib.Path) -> Mapping[str, Any]:
    """The identity of the run that a folder belongs to; empty where it is free, or damaged."""
    try:
        known = read_json(folder / _RUN).get("identity")
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) and _started(folder) else {}


def seconds_spent(path: pathlib.Path) -> float:
    """Seconds that a run has taken up to its newest checkpoint, over all its continuations.

    A file that is missing counts as 0 seconds; one that is damaged as well, with a warning.
    """
    try:
        seconds = read_json(path / _SECONDS).get("seconds")
        if type(seconds) not in (int, float) or not 0 <= seconds < _MOST_SECONDS:
            raise ValueError(f"it says {str(seconds)[:40]}")
        return float(seconds)
    except FileNotFoundError:
        return 0.0
    except ValueError as error:
        warnings.warn(f"{path / _SECONDS} is damaged, the time of this run is counted anew: "
                      f"{error}", stacklevel=2)
        return 0.0


class Workdir:
    """What a run does with its folder; every method does nothing when `path` is None.

    Args:
      path: a folder that is prepared, locked and claimed, or None.
      identity: what must be equal for a run to be continued.

    Attributes:
      path: the folder, or None.
    """

    def __init__(self, path: Optional[pathlib.Path], identity: Mapping[str, Any]):
        self.path = path
        self._identity = identity
        self._checkpoints = path and _checkpoints(path, identity)
        self._began = time.monotonic() - (seconds_spent(path) if path else 0.0)

    def restore(self, like: PyTree) -> Optional[tuple[int, PyTree]]:
        """(step, state) of the newest whole checkpoint, or None."""
        return self._checkpoints.restore(like) if self._checkpoints else None

    def save(self, step: int, state: PyTree) -> None:
        """Saves a checkpoint and the time spent so far."""
        if self._checkpoints:
            self._checkpoints.save(step, state)
            self.note_time(step)

    def has_set(self) -> bool:
        """Whether a run has come to its end here, after which its time is not counted on."""
        return self.path is not None and (self.path / _SET).exists()

    def note_time(self, step: int) -> None:
        """Writes down the time spent so far; warns where that cannot be done."""
        if self.path:
            spent = {"step": step, "seconds": round(time.monotonic() - self._began, 3)}
            try:
                write_json(self.path / _SECONDS, spent)
            except SetFileError as error:  # no reason to end a run, still less a finished one
                warnings.warn(f"the time of this run is not written down: {error}", stacklevel=3)

    def note_failure(
        self, step: int, metrics: Mapping[str, float], rows: Callable[[], Mapping[str, Any]], *,
        saved: int,
    ) -> str:
        """Writes down what it takes to see a step that was not finite again.

        Args:
          step: that step.
          metrics: of that step.
          rows: () -> {place: array}, what it was fed with: rows of the real set or of a store.
          saved: the step of the checkpoint that it follows; 0 where it follows the start.

        Returns:
          Where it stands, to be told in the error; nothing without a folder.
        """
        if not self.path:
            return ""
        failure = json.loads(format_line(step, metrics))
        fed = {name: array.tolist() for name, array in rows().items()}
        told = {
            **failure, "follows_checkpoint": saved, "rows": fed,
            "run": plain(self._identity, "run"), "versions": versions(),
        }
        try:
            write_json(self.path / _FAILURE, told)
        except SetFileError as error:  # what is told is why the run ends, not that the disk is full
            return f"; {_FAILURE} cannot be written ({error.message})"
        return f"; {_FAILURE} holds the step"

    def metrics(self, step: int) -> Optional[MetricsWriter]:
        """The metrics file, without the lines of steps that are going to be repeated."""
        if self.path is None:
            return None
        writer = MetricsWriter(self.path / "metrics.jsonl")
        writer.truncate_after(step)
        return writer


@contextlib.contextmanager
def open_workdir(
    path: str | pathlib.Path | None, identity: Mapping[str, Any]
) -> Iterator[Workdir]:
    """Prepares, locks and claims a run folder for the length of a `with` block.

    Args:
      path: the folder; made if missing. None for a run that keeps nothing.
      identity: what must be equal for a run to be continued.

    Raises:
      ConfigError: the folder cannot be made or written.
      CheckpointError: another process uses it, or it belongs to another run.
    """
    if path is None:
        yield Workdir(None, identity)
        return
    folder = prepare_folder(path)
    with RunLock(folder):
        _claim(folder, identity)
        yield Workdir(folder, identity)


def _checkpoints(folder: pathlib.Path, identity: Mapping[str, Any]) -> Checkpoints:
    # Even the number of steps shapes the learning-rate schedule; what is free, `shaping` says.
    return Checkpoints(inner_folder(folder, "checkpoints"), identity=identity)


def _started(folder: pathlib.Path) -> bool:
    """Whether a run has left more than its claim."""
    return any(p.name not in (LOCK_NAME, OWNER_NAME, _RUN) and p.name[0] != "."
               for p in folder.iterdir())


def _claim(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """`claim` of a folder that is locked."""
    path, own = folder / _RUN, full_identity(identity)
    known = None
    try:
        known = read_json(path).get("identity")
        if not isinstance(known, dict):
            raise ValueError("it holds no identity")
    except FileNotFoundError:
        pass
    except ValueError as error:
        warnings.warn(f"{path} is damaged and is written again: {error}", stacklevel=4)
    if isinstance(known, dict) and _started(folder):
        check_identity(known, own, where=str(folder))
    kept = _checkpoints(folder, identity)
    kept.check_owner()
    if not isinstance(known, dict) and not kept.steps() and (folder / _SET).exists():
        raise CheckpointError(
            f"{folder} holds a finished {_SET}, and neither {_RUN} nor a checkpoint says whose",
            fix="use another folder, or move that file away")
    if known != own:
        write_json(path, {"identity": own, "versions": versions()})
