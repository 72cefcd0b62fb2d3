"""Commands run one at a time on a quiet machine, ended in time, with the load written down.

The load is the mean of the last minute's runnable processes, as the system tells it. It falls
slowly: after a command that kept two cores busy it takes most of a minute to halve.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dd_jax.run.stop import EXIT_STOPPED

GRACE_SECONDS = 180.0  # a step, a compilation or a test may have to end before a run can save


def load_now() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


class Clock(NamedTuple):
    """How time and load are read, so that tests need neither.

    Attributes:
      now: () -> seconds.
      sleep: (seconds) -> None.
      load: () -> the load average.
      poll: seconds between two looks.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    load: Callable[[], float] = load_now
    poll: float = 1.0


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
      code: its exit code, negative for a signal.
      asked: whether it was asked to end.
      seconds: that it ran.
      most_load: the largest load average meanwhile, its own included.
    """

    code: int
    asked: bool
    seconds: float
    most_load: float

    @property
    def later(self) -> bool:
        """Whether the same command goes on where this one was stopped."""
        return self.code == EXIT_STOPPED or (self.asked and self.code != 0)


def wait_until_quiet(
    bound: float, clock: Clock, *, over: Callable[[], bool], tell: Callable[[str], None]
) -> float | None:
    """Waits while the load average is above a bound.

    Args:
      bound: the largest load that counts as quiet.
      clock: of time and load.
      over: () -> whether to give up waiting.
      tell: is given a line when the waiting begins.

    Returns:
      The load then; None where the waiting was given up.
    """
    told = False
    while True:
        load = clock.load()
        if over():
            return None
        if load <= bound:
            return load
        if not told:
            tell(f"waiting: load {load:.2f}, quiet is {bound:.2f}")
        told = True
        clock.sleep(clock.poll)


def supervised(
    words: Sequence[str], *, log: Path, clock: Clock, over: Callable[[], bool],
    grace: float = GRACE_SECONDS,
) -> Ended:
    """Runs a command to its end, or asks it by SIGTERM to end once `over()` is true.

    A command that has not ended `grace` seconds after it was asked is killed; whatever ends this
    process asks it as well. It has a session of its own, so that a Ctrl-C reaches it once.

    Args:
      words: the command.
      log: what it says is appended there.
      clock: of time and load.
      over: () -> whether it shall end.
      grace: seconds that it has to end.

    Returns:
      How it ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begun, asked, most = clock.now(), None, clock.load()
    with open(log, "ab") as said:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                 start_new_session=True)
        try:
            while child.poll() is None:
                most = max(most, clock.load())
                if asked is None and over():
                    child.terminate()
                    asked = clock.now()
                elif asked is not None and clock.now() - asked > grace:
                    child.kill()
                try:
                    child.wait(clock.poll)
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            child.terminate()
            raise
    return Ended(child.returncode, asked is not None, clock.now() - begun, max(most, clock.load()))
