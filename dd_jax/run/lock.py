"""One live run per folder: the output folder is checked first, then locked for the whole run."""

from __future__ import annotations

import os
import pathlib
import socket
import warnings
from typing import Any

from dd_jax.data.places import prove_writable, stands_at
from dd_jax.errors import CheckpointError, ConfigError, require_kind
from dd_jax.store.owner import named, owner_of, sign, unsign

LOCK_NAME = "run.lock"
OWNER_NAME = "run.owner"


def prepare_folder(folder: str | os.PathLike) -> pathlib.Path:
    """Makes an output folder if need be and proves that files can be written there.

    Args:
      folder: the folder; missing parents are made too.

    Returns:
      The absolute path.

    Raises:
      ConfigError: the path or a parent is a file, or nothing can be written there.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as parent:
      ...   prepare_folder(parent + "/run").name
      'run'
    """
    require_kind("workdir", folder, (str, os.PathLike), expected="a folder",
                 fix="pass a path, or None to keep nothing")
    path = pathlib.Path(folder).absolute()
    for place in (*reversed(path.parents), path):
        if stands_at(place) not in ("nothing", "folder"):
            found = "is" if place == path else f"cannot be made: its parent {place} is"
            raise ConfigError(f"the output folder {path} {found} a file", fix="choose another name")
    try:
        path.mkdir(parents=True, exist_ok=True)
        prove_writable(path)
    except OSError as error:
        raise ConfigError(f"nothing can be written in the output folder {path} "
                          f"({error.strerror or error})",
                          fix="choose a folder that you may write to, with free space") from error
    return path


class RunLock:
    """Holds the lock of a run folder for the time of a `with` block.

    `filelock` holds it: the system drops it when the process ends in any way, a forked child does
    not keep it, and a lock file that is a link is refused. A second file names the owner, for the
    message to whoever comes second. The lock file stays behind, so that nobody can lock a deleted
    one; for the same reason nobody is told to delete it.

    Args:
      folder: an existing folder.

    Raises:
      CheckpointError: (on entry) another live process holds the folder, or the file cannot be
        opened.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder, RunLock(folder) as lock:
      ...   lock.path.name
      'run.lock'
    """

    def __init__(self, folder: str | os.PathLike):
        self.path = pathlib.Path(folder).absolute() / LOCK_NAME
        self._signature = self.path.with_name(OWNER_NAME)
        self._lock: Any = None

    def __enter__(self) -> RunLock:
        import filelock

        if self._lock is not None and self._lock.is_locked:
            raise self._refusal()
        if not self.path.parent.is_dir():  # filelock would make it
            raise CheckpointError(f"the lock file {self.path} cannot be opened: there is no such "
                                  "folder", fix="make the folder")
        lock = filelock.FileLock(self.path, timeout=0, mode=0o644, thread_local=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise self._refusal() from None
        except OSError as error:
            raise CheckpointError(f"the lock file {self.path} cannot be opened "
                                  f"({error.strerror or error})", fix="check the folder") from error
        try:
            self._name_owner()
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._lock.is_locked:  # not so in a forked child, which must leave both files alone
            try:
                unsign(self._signature)
            finally:
                self._lock.release()

    def _name_owner(self) -> None:
        before = owner_of(self._signature)
        if before and before.get("host") != socket.gethostname():
            warnings.warn(f"{self.path.parent} was left locked by {named(before)}; taking it over",
                          stacklevel=3)
        sign(self._signature)

    def _refusal(self) -> CheckpointError:
        who = named(owner_of(self._signature))
        return CheckpointError(f"{self.path.parent} is in use by {who}",
                               fix="wait until it ends, stop it there, or use another folder")
