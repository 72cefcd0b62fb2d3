"""Progress is shown where somebody looks, and never ends a run."""

from __future__ import annotations

import io
import sys
import warnings

import jax.numpy as jnp
import pytest

from dd_jax.run import progress as shown
from dd_jax.run.progress import progress, safe_callback


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_come_every_ten_seconds_and_at_the_end(capsys, clock):
    with progress(100, start=20, description="dm") as bar:
        for step in range(21, 101):
            clock[0] += 0.5
            bar.update(step, loss=jnp.float32(0.25))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 4
    assert lines[0] == "dm: step 40/100, 2 steps/s, 0:30 left, loss 0.25"
    assert lines[-1] == "dm: step 100/100, 2 steps/s, loss 0.25"


def test_nothing_is_shown_or_fetched_when_switched_off(capsys):
    class Costly:
        def __float__(self):
            raise AssertionError("looked at")

    with progress(1, enabled=False) as bar:
        bar.update(1, loss=Costly())
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    with progress(4, description="dm [x]") as bar:
        for step in range(1, 5):
            bar.update(step, loss=0.5, note="text")
    text = sys.stderr.getvalue()
    assert "4/4" in text and "steps/s" in text and "loss 0.5, note text" in text
    assert "dm [x]" in text and "\x1b[" in text


def test_a_notebook_without_widgets_gets_plain_lines(monkeypatch, capsys):
    from rich import console

    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # makes its import fail
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress(6000) as bar:
            bar.update(6000, loss=0.5)
    assert "step 6000/6000" in capsys.readouterr().err


def test_zero_steps_and_a_step_beyond_the_end(capsys):
    with progress(0) as bar:
        bar.update(0)
        bar.update(5)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_an_error_of_the_run_passes_through():
    with pytest.raises(ZeroDivisionError), progress(3):
        raise ZeroDivisionError


def test_f52_a_display_that_breaks_does_not_end_the_run(capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("display")

    monkeypatch.setattr(shown, "_shown", broken)
    with progress(2) as bar:
        bar.update(2)
        bar.update(2)
    assert capsys.readouterr().err.count("RuntimeError: display") == 1


def test_f52_a_callback_is_disabled_after_one_traceback(capsys):
    calls = []

    def plot(step):
        calls.append(step)
        if step == 2:
            raise ValueError("no display")

    safe = safe_callback(plot)
    for step in range(1, 6):
        safe(step)
    assert calls == [1, 2]
    err = capsys.readouterr().err
    assert err.count("Traceback") == 1 and "ValueError: no display" in err
    assert "the callback plot failed and is disabled" in err
    assert safe.__name__ == "plot" and safe_callback(lambda a, *, b: a + b)(1, b=2) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_may_still_end_the_run_on_purpose(error):
    def leave():
        raise error

    with pytest.raises(error):
        safe_callback(leave)()


def test_a_callback_object_without_a_name(capsys):
    class Plot:
        def __call__(self):
            raise OSError("full")

    assert safe_callback(Plot())() is None
    assert "the callback Plot failed" in capsys.readouterr().err
