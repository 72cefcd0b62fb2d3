"""Keeps freed memory in the process on Linux with glibc: returning large blocks to the system after
every step, and faulting them in again, costs a CPU run up to half its speed."""

from __future__ import annotations

import os
import sys

_MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2
OFF = "DD_JAX_KEEP_MEMORY"


def keep_memory() -> bool:
    """Tells the C allocator to keep freed memory; returns whether it did.

    Called by the command line and the benchmarks, never on import. Switched off by setting
    DD_JAX_KEEP_MEMORY=0.
    """
    if not sys.platform.startswith("linux") or os.environ.get(OFF) == "0":
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False  # not glibc
    # The largest C int: memory is then given back only when the process ends.
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20))
    return all([mallopt(option, value) == 1 for option, value in settings])
