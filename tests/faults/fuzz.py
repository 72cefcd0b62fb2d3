"""Damaged, foreign and lying files for every reader: the content or a typed error, nothing else.

    python -m tests.faults.fuzz 100000                     all readers, with a seed of today
    python -m tests.faults.fuzz 1 --seed 7 --first 123     one case again
    python -m tests.faults.fuzz 5000 --only sets

A case is named by seed and number. It fails with an error of no type of this library's or one that
a terminal would obey, with twenty seconds or 500 MB, or with a process that was started.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import pathlib
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator

from dd_jax.errors import DDJaxError
from tests.faults.mutate import odd_file
from tests.faults.readers import READERS, WEIGHTS, Bases, cleared, make_bases

SECONDS, MEGABYTES = 20.0, 500.0
_STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
           "os.forkpty", "pty.spawn", "os.startfile"}
_started: list[str] | None = None  # what was started since somebody looks


class Hang(BaseException):
    """A case took too long."""


def today() -> int:
    """A seed that is another every day."""
    return datetime.datetime.now(datetime.UTC).date().toordinal()


def _hear(event: str, arguments: tuple) -> None:
    if _started is not None and event in _STARTS:
        _started.append(f"{event} {arguments!r:.200}")


@contextlib.contextmanager
def _watched() -> Iterator[list[str]]:
    """What starts processes in the block; an audit hook stays for ever, so there is one."""
    global _started
    if not hasattr(_watched, "there"):
        sys.addaudithook(_hear)
        _watched.there = True
    _started = []
    try:
        yield _started
    finally:
        _started = None


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises `Hang` in a block that takes longer; in other threads it is only timed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def problem_of(read) -> str:
    """What is wrong with how a reader ends; empty where nothing is."""
    found, peak, start = "", _peak(), time.perf_counter()
    with _watched() as started, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _limited(SECONDS):
                read()
        except DDJaxError as error:
            if not str(error).isprintable() or len(str(error)) > 5000:
                found = f"an error that is long or not printable: {str(error)[:200]!r}"
        except Hang:
            found = f"more than {SECONDS} s"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"[:300]
    taken, grown = time.perf_counter() - start, _peak() - peak
    if started:
        found = f"started {started[0]}"
    elif not found and taken > SECONDS:
        found = f"{taken:.1f} s"
    elif not found and grown > MEGABYTES:
        found = f"{grown:.0f} MB"
    return found


def run_case(seed: int, number: int, folder: pathlib.Path, bases: Bases, only: str | None) -> str:
    """Spoils one file and reads it; what is wrong then, or nothing."""
    rng = random.Random(f"{seed}/{number}")
    drawn = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    name = only or drawn
    path, read = READERS[name](rng, cleared(folder), bases)
    if rng.random() < 0.03:
        odd_file(rng, path)
    problem = problem_of(read)
    return problem and f"{name} (1 --seed {seed} --first {number} --only {name}): {problem}"


def run(cases: int, seed: int, folder: pathlib.Path, *, first: int = 0, only: str | None = None,
        most: int = 20) -> list[str]:
    """Reads so many spoilt files; what was wrong, at most `most` of it."""
    import jax

    bases, found = make_bases(folder / "bases"), []
    for number in range(first, first + cases):
        problem = run_case(seed, number, folder / "case", bases, only)
        if problem:
            found.append(problem)
            if len(found) == most:
                break
        if number % 5000 == 4999:
            jax.clear_caches()  # of decoders of every shape that a file could name
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=int)
    parser.add_argument("--seed", type=int, default=today())
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=sorted(READERS))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options.cases, options.seed, pathlib.Path(folder), first=options.first,
                    only=options.only)
    print("\n".join(found))
    print(f"{len(found)} faults in {options.cases} files, {time.perf_counter() - start:.0f} s, "
          f"{_peak():.0f} MB at most")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
