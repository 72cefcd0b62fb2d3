"""Signals where a command has nothing to save: it ends at once, as one that may be called again."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from dd_jax.run.stop import EXIT_STOPPED, StopSignals

GRACE = 5.0  # seconds; compiled code may run for minutes before Python does


class Stopped(KeyboardInterrupt):
    """Ends a command from wherever it is; no error, so that nothing takes it for one of its own."""


class EndSignals(StopSignals):
    """Ends the command by the first SIGTERM or SIGINT that no run within its `with` block takes.

    It raises `Stopped`; where compiled code does not let Python do so, the process ends with the
    same exit code a little later. A run that was over when its signal came hands it on.
    """

    def __init__(self) -> None:
        super().__init__("stopping")
        self._told, self._over = threading.Event(), threading.Event()

    def __exit__(self, *exc: Any) -> None:
        self._over.set()
        super().__exit__(*exc)

    def _tell(self) -> None:
        super()._tell()
        self._told.set()
        threading.Thread(target=self._end, daemon=True).start()

    def _handle(self, number: int, frame: Any) -> None:
        again, self._handled = self._handled, True
        self._note(number)
        if not again:
            self._told.wait(1.0)  # one line after the other
            raise Stopped(self._words())

    def _take_over(self, number: int, *, ending: bool) -> None:
        self._note(number)
        if not ending:
            raise Stopped(self._words())

    def _words(self) -> str:
        return f"stopped by {self.signal_name}; run the same command again to continue"

    def _end(self) -> None:
        if not self._over.wait(GRACE):
            leave(EXIT_STOPPED, f"RunStopped: {self._words()}\n")


def leave(code: int, words: str = "") -> None:
    """Ends the process without Python's way out, on which threads of compiled code may crash."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, words)):
        try:
            stream.write(text)
            stream.flush()
        except Exception:  # a closed pipe: there is nobody to tell
            pass
    os._exit(code)
