"""Graceful stop: the first signal asks the run to save and leave, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any, Optional

from dd_jax.errors import RunStopped

EXIT_STOPPED = 75
EXIT_NON_FINITE = 3

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_active: set[StopSignals] = set()


class StopSignals:
    """Watches for SIGTERM and SIGINT during a `with` block; inert outside the main thread.

    Python runs signal handlers between two of its own instructions only, so a handler alone would
    be deaf while compiled code runs. The system also writes each signal's number into a pipe at
    once; a thread reads it and can therefore end the process in the middle of a long step.

    A signal that came within is handed on to the block around it, if there is one.

    In a notebook or at the Python prompt a second Ctrl-C raises KeyboardInterrupt instead, which
    leaves the user's session alive.

    Args:
      doing: what is told of the first signal.

    Attributes:
      requested: True after the first signal; look at it between steps.
      signal_name: "SIGTERM" or "SIGINT" after the first signal, else None.

    Example:
      >>> with StopSignals() as stop:
      ...   stop.requested
      False
    """

    def __init__(self, doing: str = "saving and stopping after this step") -> None:
        self._doing = doing
        self.requested = False
        self.signal_name: Optional[str] = None
        self._old: dict[int, Any] = {}
        self._old_descriptor = -1
        self._pipe: Optional[tuple[int, int]] = None
        self._reader: Optional[threading.Thread] = None
        self._handled = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._pipe = os.pipe()
        for end in self._pipe:
            os.set_blocking(end, end == self._pipe[0])
        self._reader = threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True,
                                        name="dd_jax-stop")
        self._reader.start()
        self._old_descriptor = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._old[number] = signal.signal(number, self._handle)
        _active.add(self)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._pipe is None:
            return
        around = getattr(self._old.get(signal.SIGTERM), "__self__", None)
        self._restore()
        os.write(self._pipe[1], b"\0")  # tells the thread to leave
        if self._reader is not None:
            self._reader.join()
        for end in self._pipe:
            os.close(end)
        self._pipe = None
        if self.signal_name is not None and isinstance(around, StopSignals):
            around._take_over(signal.Signals[self.signal_name], ending=exc[0] is not None)

    def check(self, when: str) -> None:
        """Raises RunStopped, "stopped by SIGTERM " and `when`, after the first signal."""
        if self.requested:
            raise RunStopped(f"stopped by {self.signal_name} {when}",
                             fix="run the same command again to continue")

    def _restore(self) -> None:
        _active.discard(self)
        for number, handler in self._old.items():
            # None stands for a handler that was not set from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old = {}
        signal.set_wakeup_fd(self._old_descriptor)

    def _watch(self, descriptor: int) -> None:
        seen = 0
        while True:
            for number in os.read(descriptor, 64):
                if number == 0:
                    return
                if number not in _SIGNALS:
                    continue
                seen += 1
                self._note(number)
                if seen == 1:
                    self._tell()
                elif not (number == signal.SIGINT and _interactive()):
                    os._exit(128 + number)

    def _handle(self, number: int, frame: Any) -> None:
        # The thread sees every signal too; set the flag here as well, so that no instruction of
        # the main thread after the signal can still read False.
        again, self._handled = self._handled, True
        self._note(number)
        if again and number == signal.SIGINT and _interactive():
            raise KeyboardInterrupt

    def _tell(self) -> None:
        _say(f"{self.signal_name}: {self._doing}; send it again to stop at once\n")

    def _take_over(self, number: int, *, ending: bool) -> None:
        """Takes a signal that a block within got; `ending`: an error leaves that block."""
        self._note(number)

    def _note(self, number: int) -> None:
        if not self.requested:
            self.signal_name = signal.Signals(number).name
            self.requested = True


def _say(text: str) -> None:
    # A closed or broken stream is no reason to lose the run.
    with contextlib.suppress(Exception):
        sys.stderr.write(text)
        sys.stderr.flush()


def _interactive() -> bool:
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


def _forget_in_child() -> None:
    # A forked worker must not write into its parent's pipe: one Ctrl-C would count twice.
    for stop in list(_active):
        stop._restore()
        stop._pipe = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
