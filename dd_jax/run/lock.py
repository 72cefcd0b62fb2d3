"""One live run per folder: the output folder is checked first, then locked for the whole run."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import tempfile
import warnings
from typing import Any, Optional

from dd_jax.errors import CheckpointError, ConfigError

try:
    import fcntl
except ImportError:  # Windows: the process number in the file decides alone
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = "run.lock"

_held: set[RunLock] = set()


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
    path = pathlib.Path(folder).absolute()
    if path.exists() and not path.is_dir():
        raise ConfigError(f"the output folder {path} is a file", fix="choose another name")
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise ConfigError(f"the output folder {path} cannot be made: its parent {parent} is a "
                              f"file", fix="choose another name")
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Tried out instead of asked for: permission bits do not bind every user, and a full or
        # read-only file system does not show in them.
        with tempfile.TemporaryFile(dir=path, prefix=".probe-") as probe:
            probe.write(b"1")
            probe.flush()
    except OSError as error:
        raise ConfigError(f"nothing can be written in the output folder {path} "
                          f"({error.strerror or error})",
                          fix="choose a folder that you may write to, with free space") from error
    return path


class RunLock:
    """Holds the lock of a run folder for the time of a `with` block.

    The lock belongs to an open file, so the system drops it when the process ends in any way.
    The file also names the owner, for the message to whoever comes second and for file systems
    that have no locks.

    Args:
      folder: an existing folder.

    Attributes:
      path: the lock file; it stays behind, empty, so that nobody can lock a deleted file.

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
        self._descriptor: Optional[int] = None

    def __enter__(self) -> RunLock:
        if self._descriptor is not None:
            raise self._refusal(_me())
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CheckpointError(f"the lock file {self.path} cannot be opened "
                                  f"({error.strerror})", fix="check the folder") from error
        try:
            locked = _try_lock(descriptor)
            owner = _read_owner(descriptor)
            if locked is False or (locked is None and _seems_alive(owner)):
                raise self._refusal(owner)
            if owner and owner.get("host") != _me()["host"]:
                warnings.warn(f"{self.path.parent} was left locked by pid {owner.get('pid')} on "
                              f"{owner.get('host')}; taking it over", stacklevel=2)
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(_me()).encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(self)
        return self

    def __exit__(self, *exc: Any) -> None:
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            try:
                os.ftruncate(descriptor, 0)
                if fcntl is not None:  # closing alone would not free it while a copy is open
                    with contextlib.suppress(OSError):
                        fcntl.flock(descriptor, fcntl.LOCK_UN)
            finally:
                os.close(descriptor)

    def _refusal(self, owner: Optional[dict[str, Any]]) -> CheckpointError:
        who = f"pid {owner.get('pid')} on {owner.get('host')}" if owner else "another process"
        return CheckpointError(
            f"{self.path.parent} is in use by {who}",
            fix=f"wait for it, use another folder, or remove {self.path} if that run is dead")


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": _start_marker(os.getpid())}


def _start_marker(pid: int) -> Optional[str]:
    """When a process began, in ticks since boot: tells a reused number from the old process."""
    try:
        # The name of the program stands in brackets and may hold spaces, so count from its end.
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[19]
    except (OSError, IndexError):
        return None


def _try_lock(descriptor: int) -> Optional[bool]:
    """True: locked; False: another open file holds it; None: no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _read_owner(descriptor: int) -> Optional[dict[str, Any]]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        owner = json.loads(os.read(descriptor, 4096))
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else None


def _seems_alive(owner: Optional[dict[str, Any]]) -> bool:
    """Judges by the file alone, for systems without locks; another host counts as alive."""
    if owner is None:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    try:
        os.kill(owner["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    start = _start_marker(owner["pid"])
    return start is None or owner.get("start") in (None, start)


def _release_in_child() -> None:
    # A forked worker that outlives the run would otherwise keep the folder locked.
    for lock in list(_held):
        if lock._descriptor is not None:
            os.close(lock._descriptor)
            lock._descriptor = None
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
