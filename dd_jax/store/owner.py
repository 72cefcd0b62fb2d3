"""Who holds a lock: a small file beside it, for the message to whoever comes second.

A lock holds without it as well, so nothing that is wrong with the file is an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
from typing import Any

from dd_jax.errors import SetFileError, printable
from dd_jax.store.atomic import write_atomically
from dd_jax.store.envelope import read_json_file


def sign(path: pathlib.Path) -> None:
    """Writes down this process and its host; on a full disk nothing."""
    text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n"
    with contextlib.suppress(SetFileError):
        write_atomically(path, lambda file: file.write(text.encode()))


def owner_of(path: pathlib.Path) -> dict[str, Any] | None:
    """What is written there; None where nothing is, or something else."""
    try:
        owner = read_json_file(path, "the owner of a lock", fix="")
    except (OSError, SetFileError):
        return None
    return owner if isinstance(owner.get("pid"), int) else None


def unsign(path: pathlib.Path) -> None:
    """Removes it; it may be a folder, of somebody's making, which stays."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def named(owner: dict[str, Any] | None) -> str:
    """The owner in a message.

    Example:
      >>> named({"pid": 7, "host": "here"}), named(None)
      ('pid 7 on here', 'another process')
    """
    if owner is None:
        return "another process"
    return f"pid {owner['pid']} on {printable(owner.get('host'), most=100)}"
