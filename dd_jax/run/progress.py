"""What a person sees of a run, and the fence around code that only shows things.

The clock is read here and nowhere else in the run: what it says never reaches state or metrics.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Optional, Protocol

PLAIN_SECONDS = 10.0  # between two plain lines
_REDRAW_SECONDS = 0.1  # between two looks at the metrics, which may wait for the device


class Progress(Protocol):
    """What `progress` yields."""

    def update(self, step: int, **metrics: Any) -> None:
        """Shows that `step` steps are finished, with the scalars in `metrics`."""


@contextlib.contextmanager
def progress(
    total: int, *, start: int = 0, enabled: Optional[bool] = None, description: str = "",
    unit: str = "step",
) -> Iterator[Progress]:
    """Shows how far a run is: a bar on a terminal or in a notebook, else a line now and then.

    Everything goes to stderr. A display that fails is switched off and the run goes on.

    Args:
      total: the number of steps of the whole run.
      start: the step that a resumed run starts from.
      enabled: False shows nothing; None and True pick the display by where stderr goes.
      description: a short title.
      unit: what is counted.

    Yields:
      An object with `update(step, **metrics)`; metrics are scalars, numbers or arrays.

    Example:
      >>> with progress(2, enabled=False) as shown:
      ...   shown.update(1, loss=0.5)
    """
    with contextlib.ExitStack() as stack:
        show = None
        if enabled is not False:
            show = (_bar(stack, total, start, description, unit)
                    or _lines(total, start, description, unit))
        yield _Shown(safe_callback(show))


def safe_callback(fn: Optional[Callable[..., Any]]) -> Callable[..., Any]:
    """Wraps a callback so that its failure cannot end a run.

    After one exception the traceback is printed once to stderr and the callback is never called
    again. KeyboardInterrupt and SystemExit pass through. None becomes a function that does
    nothing.

    Returns:
      A function of the same arguments; it returns what `fn` returns, or None once disabled.

    Example:
      >>> safe_callback(None)(1, 2) is None
      True
    """
    broken = fn is None

    @functools.wraps(fn if fn is not None else _nothing, assigned=("__name__", "__doc__"))
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal broken
        if broken:
            return None
        try:
            return fn(*args, **kwargs)  # type: ignore[misc]
        except Exception:
            broken = True
            with contextlib.suppress(Exception):
                name = getattr(fn, "__name__", type(fn).__name__)
                sys.stderr.write(f"{traceback.format_exc()}the callback {name} failed and is "
                                 "disabled; the run goes on\n")
            return None

    return wrapped


class _Shown:
    def __init__(self, show: Callable[..., Any]):
        self._show = show

    def update(self, step: int, **metrics: Any) -> None:
        self._show(step, metrics)


def _nothing() -> None:
    """Does nothing."""


def _bar(
    stack: contextlib.ExitStack, total: int, start: int, description: str, unit: str
) -> Optional[Callable[..., None]]:
    """A rich progress bar, or None where a package or a place to draw is missing."""
    try:
        from rich import progress as rich_progress
        from rich.console import Console

        console = Console(stderr=True)
        if console.is_jupyter:
            import ipywidgets  # noqa: F401 - without it rich draws nothing there
        elif not console.is_terminal:
            return None
        bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rate]}", markup=False),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[metrics]}", markup=False),
            console=console,
        )
        task = bar.add_task(description, total=total, completed=start, rate="", metrics="")
        stack.enter_context(bar)
    except Exception:
        return None
    clock = _Clock(start)

    def show(step: int, metrics: dict[str, Any]) -> None:
        if step >= total or clock.due(_REDRAW_SECONDS):
            rate = clock.rate(step)
            # The bar itself keeps a sliding window for the time that is left.
            bar.update(task, completed=step, rate=f"{rate:.3g} {unit}s/s", metrics=_shown(metrics))

    return show


def _lines(total: int, start: int, description: str, unit: str) -> Callable[..., None]:
    clock = _Clock(start)
    title = f"{description}: " if description else ""

    def show(step: int, metrics: dict[str, Any]) -> None:
        if not (step >= total or clock.due(PLAIN_SECONDS)):
            return
        rate = clock.rate(step)
        left = f", {_duration((total - step) / rate)} left" if rate > 0 and step < total else ""
        text = _shown(metrics)
        sys.stderr.write(f"{title}{unit} {step}/{total}, {rate:.3g} {unit}s/s{left}"
                         f"{', ' + text if text else ''}\n")
        sys.stderr.flush()

    return show


class _Clock:
    """When something was last shown, and how many steps per second there were since then."""

    def __init__(self, step: int):
        self._step, self._when = step, time.monotonic()

    def due(self, seconds: float) -> bool:
        return time.monotonic() - self._when >= seconds

    def rate(self, step: int) -> float:
        """Steps per second since the last call, which this call replaces."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._when, 1e-9)
        self._step, self._when = step, now
        return rate


def _shown(metrics: dict[str, Any]) -> str:
    parts = []
    for name, value in metrics.items():
        try:
            parts.append(f"{name} {float(value):.4g}")
        except (TypeError, ValueError):
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
