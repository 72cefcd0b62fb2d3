"""The user's cache folder, for compiled programs; used only where nobody else can write into it.

A compiled program that is loaded runs, so whoever can write into its folder can run programs as the
user.
"""

from __future__ import annotations

import os
import pathlib
import stat
import sys

from dd_jax.errors import printable

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> pathlib.Path:
    """DD_JAX_CACHE, or dd_jax in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("DD_JAX_CACHE") or pathlib.Path(base) / "dd_jax")


def programs_folder() -> pathlib.Path | None:
    """The folder of compiled programs, made with mode 700 if need be.

    Returns:
      The folder; or None where it cannot be made, or it is not the user's alone, which is told.
    """
    folder = None
    try:
        folder = cache_folder().absolute() / "compiled"
        for place in (folder.parent, folder):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = _not_private(folder)
        if not reason:
            folder.chmod(0o700)
            return folder
    except (OSError, RuntimeError) as error:  # the latter where the user has no home
        reason = f"it cannot be used ({getattr(error, 'strerror', None) or error})"
    print(f"compiled programs are not kept in {printable(folder)}: {reason}", file=sys.stderr)
    return None


def _not_private(folder: pathlib.Path) -> str:
    """Why programs in a folder may be somebody else's; empty where they cannot be."""
    if not hasattr(os, "geteuid"):  # no owners and modes that could be looked at
        return ""
    state, above = folder.lstat(), folder.parent.stat()
    if not stat.S_ISDIR(state.st_mode):
        return "it is a link or no folder"
    if state.st_uid != os.geteuid():
        return f"it belongs to user {state.st_uid}"
    if state.st_mode & _OTHERS_WRITE:
        return "others can write into it; delete it, or set DD_JAX_CACHE to a folder of your own"
    own = above.st_uid in (0, os.geteuid())
    if not own or (above.st_mode & _OTHERS_WRITE and not above.st_mode & stat.S_ISVTX):
        return f"others can replace it, since they can write into {printable(folder.parent)}"
    return ""
