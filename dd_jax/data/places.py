"""What stands at a path that a user gave: looked at once, and told instead of raised."""

from __future__ import annotations

import os
import stat
import tempfile

from dd_jax.errors import ConfigError, DDJaxError, require_kind, told


def stands_at(path: str | os.PathLike, *, error: type[DDJaxError] = ConfigError) -> str:
    """"nothing", "file", "folder" or "other", such as a pipe.

    Args:
      path: of anything.
      error: of a path that cannot be looked at.

    Raises:
      ConfigError: it is no path.
      DDJaxError: of the kind `error`: a name too long, a folder that may not be entered.

    Example:
      >>> stands_at(os.devnull), stands_at("x" * 9 + "/y")
      ('other', 'nothing')
      >>> stands_at("x" * 300)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: the path 'xxx...' cannot be used (...); ...
    """
    require_kind("a path", path, (str, os.PathLike), expected="text or a pathlib.Path",
                 fix="pass where it is")
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    except (OSError, ValueError) as why:
        raise unusable(path, why, error=error) from None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def unusable(
    path: str | os.PathLike, why: Exception, *, error: type[DDJaxError] = ConfigError
) -> DDJaxError:
    """The error of a path that the system refuses to look at."""
    reason = getattr(why, "strerror", None) or why
    return error(f"the path {told(os.fspath(path))} cannot be used ({reason})",
                 fix="check its length, and whether you may enter its folders")


def prove_writable(folder: str | os.PathLike) -> None:
    """Tries out whether a file can be written in a folder that exists.

    Permission bits do not bind every user, and a full or read-only file system does not show in
    them.

    Raises:
      OSError: it cannot.
    """
    with tempfile.TemporaryFile(dir=folder, prefix=".probe-") as probe:
        probe.write(b"1")
        probe.flush()
