"""Files appear whole or not at all: written beside their place, flushed, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable
from typing import BinaryIO, Union

from dd_jax.errors import SetFileError

PathLike = Union[str, "os.PathLike[str]"]


def write_atomically(path: PathLike, write: Callable[[BinaryIO], object]) -> pathlib.Path:
    """Writes one file so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder (a rename across file systems is a
    copy, which is not atomic), are forced to the disk, and take the name last.

    Args:
      path: where the file shall be; missing parent folders are made.
      write: is given the open binary file and writes the content.

    Returns:
      The path.

    Raises:
      SetFileError: the folder cannot be written, the path is a folder, a pipe or a device, or the
        disk is full.

    Example:
      >>> import pathlib, tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> write_atomically(folder / "a.bin", lambda file: file.write(b"abc")).read_bytes()
      b'abc'
    """
    path = pathlib.Path(path)
    temporary = None
    try:
        _check_target(path)
        # Not tempfile.mkstemp: that makes files private to the user, whatever the umask says.
        temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise SetFileError(
            f"cannot write {path}: {error.strerror or error}{_free(path.parent)}",
            fix="choose a folder that exists, is writable and has room",
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return path


def _check_target(path: pathlib.Path) -> None:
    """Refuses to put a file in the place of what is none; a link is replaced, not followed."""
    if path.is_dir():
        raise SetFileError(f"{path} is a folder, expected a file name", fix="add a file name")
    if path.exists() and not path.is_file() and not path.is_symlink():
        raise SetFileError(f"{path} is not a regular file", fix="choose another name")


def _sync_folder(folder: pathlib.Path) -> None:
    """Forces the rename itself to the disk, where the platform lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        # Some network file systems refuse to sync folders; the file itself is already safe.
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _free(folder: pathlib.Path) -> str:
    with contextlib.suppress(OSError):
        return f" ({shutil.disk_usage(folder).free} bytes are free there)"
    return ""
