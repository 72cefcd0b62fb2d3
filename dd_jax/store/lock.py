"""A lock beside what is being made: one process makes it, and others wait and say for whom."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

from dd_jax.errors import CheckpointError
from dd_jax.store.owner import named, owner_of, sign, unsign

_LOOK = 0.2  # seconds between two looks at a lock that somebody holds


@contextlib.contextmanager
def locked(
    path: pathlib.Path, *, wait: bool = False, stop: Callable[[], None] | None = None
) -> Iterator[None]:
    """Holds the lock beside `path` for a `with` block; the system drops that of a dead process.

    Args:
      path: what is made; its folder is made if need be.
      wait: for whoever holds the lock, which is told on stderr; False refuses.
      stop: called again and again while it waits; its error ends the waiting.

    Raises:
      CheckpointError: somebody holds it and `wait` is False, or the folder cannot be written.
    """
    import filelock

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    signature = path.with_name(f".{path.name}.owner")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            if not wait:
                raise CheckpointError(f"{path} is being made by {named(owner_of(signature))}",
                                      fix="wait until it has finished") from None
            time.sleep(_LOOK)  # whoever has just got it is writing its name down
            print(f"{path.name} is being made by {named(owner_of(signature))}: waiting for it",
                  file=sys.stderr)
            _wait(lock, stop)
        sign(signature)
    except OSError as error:
        raise CheckpointError(f"artefacts cannot be written in {path.parent} "
                              f"({error.strerror or error})",
                              fix="name a folder that is writable") from error
    try:
        yield
    finally:
        unsign(signature)
        lock.release()


def _wait(lock, stop: Callable[[], None] | None) -> None:
    import filelock

    while True:
        try:
            lock.acquire(timeout=0)
            return
        except filelock.Timeout:
            if stop is not None:
                stop()
            time.sleep(_LOOK)
