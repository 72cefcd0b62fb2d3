"""The folder of a run: lock, checkpoints, metrics and time, or nothing when there is no folder."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from dd_jax.run.checkpoint import Checkpoints
from dd_jax.run.lock import RunLock, prepare_folder
from dd_jax.run.manifest import plain
from dd_jax.run.metrics import MetricsWriter, format_line
from dd_jax.store.atomic import write_atomically
from dd_jax.types import PyTree
from dd_jax.versions import versions

_SECONDS = "seconds.json"
_FAILURE = "non_finite.json"


def seconds_spent(path: pathlib.Path) -> float:
    """Seconds that a run has taken up to its newest checkpoint, over all its continuations."""
    try:
        return float(json.loads((path / _SECONDS).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


class Workdir:
    """What a run does with its folder; every method does nothing when `path` is None.

    Attributes:
      path: the folder, or None.
    """

    def __init__(self, path: Optional[pathlib.Path], identity: Mapping[str, Any]):
        self.path = path
        self._identity = identity
        # Nothing is free to change: even the number of steps shapes the learning-rate schedule.
        self._checkpoints = path and Checkpoints(
            path / "checkpoints", identity=identity, free_fields=()
        )
        self._began = time.monotonic() - (seconds_spent(path) if path else 0.0)

    def check_owner(self) -> None:
        """Refuses a folder that holds another run's checkpoints."""
        if self._checkpoints:
            self._checkpoints.check_owner()

    def restore(self, like: PyTree) -> Optional[tuple[int, PyTree]]:
        """(step, state) of the newest whole checkpoint, or None."""
        return self._checkpoints.restore(like) if self._checkpoints else None

    def save(self, step: int, state: PyTree) -> None:
        """Saves a checkpoint and the time spent so far."""
        if self._checkpoints:
            self._checkpoints.save(step, state)
            self.note_time(step)

    def note_time(self, step: int) -> None:
        """Writes down the time spent so far."""
        if self.path:
            spent = {"step": step, "seconds": round(time.monotonic() - self._began, 3)}
            _write_json(self.path / _SECONDS, spent)

    def note_failure(
        self, step: int, metrics: Mapping[str, float], rows: Callable[[], Mapping[str, Any]], *,
        saved: int,
    ) -> str:
        """Writes down what it takes to see a step that was not finite again.

        Args:
          step: that step.
          metrics: of that step.
          rows: () -> what it was fed with, rows of the real set or of a store by their place.
          saved: the step of the checkpoint that it follows; 0 where it follows the start.

        Returns:
          Where it stands, to be told in the error; nothing without a folder.
        """
        if not self.path:
            return ""
        failure = json.loads(format_line(step, metrics))
        _write_json(self.path / _FAILURE, {
            **failure, "follows_checkpoint": saved, "rows": plain(rows(), name="rows"),
            "run": plain(self._identity), "versions": versions(),
        })
        return f"; {_FAILURE} holds the step"

    def metrics(self, step: int) -> Optional[MetricsWriter]:
        """The metrics file, without the lines of steps that are going to be repeated."""
        if self.path is None:
            return None
        writer = MetricsWriter(self.path / "metrics.jsonl")
        writer.truncate_after(step)
        return writer


def _write_json(path: pathlib.Path, entry: Mapping[str, Any]) -> None:
    text = json.dumps(entry) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


@contextlib.contextmanager
def open_workdir(
    path: str | pathlib.Path | None, identity: Mapping[str, Any]
) -> Iterator[Workdir]:
    """Prepares and locks a run folder for the length of a `with` block.

    Args:
      path: the folder; made if missing. None for a run that keeps nothing.
      identity: what must be equal for a run to be continued.

    Raises:
      ConfigError: the folder cannot be made or written.
      CheckpointError: another process uses it.
    """
    if path is None:
        yield Workdir(None, identity)
        return
    folder = pathlib.Path(path)
    prepare_folder(folder)
    with RunLock(folder):
        yield Workdir(folder, identity)
