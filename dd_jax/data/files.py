"""Reading bytes of unknown honesty: limits first, regular files only, and only ever DataError.

A small file may stand for much memory: compressed, or with holes where nothing was ever written.
So what comes out is bounded by what lies on the disk, `decoded_limit`, for all files of a set
together as for each.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
from typing import Any, BinaryIO, Union

from dd_jax.errors import DataError

PathLike = Union[str, pathlib.Path]
MAX_BYTES = 4 * 2**30
MAX_RATIO = 250  # bytes out of one: photographs give 20, plain drawings 200, deflate 1,032 at most
FREE_BYTES = 64 * 2**20  # that may come out of however little
FREE_PACKED = 8 * 2**20  # the same of an archive: labels take many times their bytes when counted
_STEP = 2**20
_MAX_EXTENTS = 4096  # pieces between the holes of one file


def decoded_limit(held: int) -> int:
    """How many bytes may come out of so many on the disk.

    Example:
      >>> decoded_limit(10) == FREE_BYTES, decoded_limit(2**30) == MAX_RATIO * 2**30
      (True, True)
    """
    return max(FREE_BYTES, MAX_RATIO * held)


def packed_limit(held: int) -> int:
    """How many bytes may come out of a compressed file of so many.

    Example:
      >>> packed_limit(10) == FREE_PACKED
      True
    """
    return max(FREE_PACKED, MAX_RATIO * held)


def open_regular(path: PathLike, *, follow: bool = True) -> BinaryIO:
    """Opens a regular file for reading; waits for no pipe and reads no device.

    Args:
      path: the file.
      follow: False refuses a link, which in a folder of anybody may lead anywhere.

    Raises:
      OSError: as said, or it cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return open(descriptor, "rb")


def read_regular(path: PathLike, *, max_bytes: int = MAX_BYTES, follow: bool = True) -> bytes:
    """All bytes of a regular file.

    Raises:
      OSError: as `open_regular`; or it is longer than `max_bytes`, or made of holes.
    """
    with open_regular(path, follow=follow) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes or size > decoded_limit(held_bytes(stream, size)):
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than can be meant")
        return stream.read(max_bytes)


def held_bytes(stream: BinaryIO, size: int) -> int:
    """Bytes of an open file of `size` that were ever written; holes read as zeros and are none.

    A file system that does not tell is believed, and so is a file that is small in any case.
    """
    if size <= FREE_BYTES or not hasattr(os, "SEEK_DATA"):
        return size
    descriptor, held, place = stream.fileno(), 0, 0
    try:
        for _ in range(_MAX_EXTENTS):
            start = os.lseek(descriptor, place, os.SEEK_DATA)
            place = os.lseek(descriptor, start, os.SEEK_HOLE)
            held += place - start
            if place >= size:
                break
    except OSError as error:
        if error.errno != errno.ENXIO:  # which says that only a hole follows
            return size
    finally:
        with contextlib.suppress(OSError):
            os.lseek(descriptor, 0, os.SEEK_SET)
    return held


def checked_file(path: PathLike, *, max_bytes: int = MAX_BYTES) -> tuple[pathlib.Path, int]:
    """The path of an existing regular file of a sane size, with that size.

    Raises:
      DataError: missing, not a regular file, unreadable, larger than `max_bytes` or made of holes.
    """
    path = pathlib.Path(path)
    try:
        regular, size = path.is_file(), path.stat().st_size
        if regular and FREE_BYTES < size <= max_bytes:
            with open_regular(path) as stream:
                held = held_bytes(stream, size)
        else:
            held = size
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})", fix="check the path") from None
    if not regular:
        raise DataError(f"{path}: expected a file, found something else", fix="check the path")
    if size > max_bytes:
        raise DataError(
            f"{path}: {size} bytes, above the limit of {max_bytes}",
            fix="keep such a set as a memory-mapped array: from_arrays(..., device=False)",
        )
    if size > decoded_limit(held):
        raise DataError(f"{path}: {size} bytes, of which only {held} were ever written",
                        fix="copy the file again")
    return path, size


class Allowance:
    """How many bytes may still be taken for a set, of which each part is told beforehand.

    Args:
      held: bytes of all its files on the disk.
      where: the set, for the error.

    Example:
      >>> Allowance(10, where="toy").take(2**30)
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: toy: decodes to more than 67108864 bytes ...
    """

    def __init__(self, held: int, *, where: str):
        self._limit = min(MAX_BYTES, decoded_limit(held))
        self._left, self._where = self._limit, where

    def take(self, count: int) -> None:
        """Notes what is going to be decoded.

        Raises:
          DataError: that and all before it is more than can be meant.
        """
        self._left -= count
        if self._left < 0:
            raise DataError(
                f"{self._where}: decodes to more than {self._limit} bytes, which is too much for "
                "what lies on the disk, or for memory",
                fix="make the images smaller, or keep them as a memory-mapped array: "
                "from_arrays(..., device=False)")


def read_limited(stream: Any, limit: int) -> bytes:
    """At most `limit` bytes, in steps, so that a lying header cannot make us allocate."""
    parts = bytearray()
    while len(parts) < limit:
        part = stream.read(min(_STEP, limit - len(parts)))
        if not part:
            break
        parts += part
    return bytes(parts)
