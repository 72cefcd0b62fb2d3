"""First signal: a flag. Second signal: out at once, even from the middle of compiled code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dd_jax.errors import RunStopped
from dd_jax.run import stop as stops
from dd_jax.run.stop import EXIT_NON_FINITE, EXIT_STOPPED, StopSignals

LOOP = """
import hashlib, sys, time
from dd_jax.run.stop import EXIT_STOPPED, StopSignals
with StopSignals() as stop:
    print("ready", flush=True)
    if sys.argv[1] == "polite":
        for _ in range(3000):
            if stop.requested:
                print("saved after", stop.signal_name, flush=True)
                sys.exit(EXIT_STOPPED)
            time.sleep(0.01)
    if sys.argv[1] == "stubborn":
        time.sleep(30)
    if sys.argv[1] == "deaf":  # one long call that lets no Python handler run
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000_000)
sys.exit(1)
"""


def start(mode: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    child = subprocess.Popen([sys.executable, "-c", LOOP, mode], env=env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == "ready\n"
    return child


def handlers():
    return [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]


def test_the_exit_codes_are_distinct():
    assert (EXIT_STOPPED, EXIT_NON_FINITE) == (75, 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_sets_the_flag_and_says_so_once(number, capsys):
    before = handlers()
    with StopSignals() as stop:
        assert not stop.requested and stop.signal_name is None
        os.kill(os.getpid(), number)
        assert stop.requested and stop.signal_name == signal.Signals(number).name
    assert handlers() == before and signal.set_wakeup_fd(-1) == -1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(stop.signal_name + ":")


def test_old_handlers_come_back_after_an_exception_and_in_a_second_use():
    before, threads = handlers(), threading.active_count()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), StopSignals():
            raise ZeroDivisionError
        assert handlers() == before
    assert threading.active_count() == threads


def test_outside_the_main_thread_it_does_nothing():
    before, seen = handlers(), []

    def work():
        with StopSignals() as stop:
            seen.append((stop.requested, handlers()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)] and handlers() == before


def test_f3_a_polite_run_saves_and_exits_75():
    child = start("polite")
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=20)
    assert child.returncode == EXIT_STOPPED
    assert out == "saved after SIGTERM\n" and "SIGTERM: saving and stopping" in err


@pytest.mark.parametrize("mode, second", [("stubborn", signal.SIGTERM), ("deaf", signal.SIGINT)])
def test_f3_the_second_signal_exits_at_once(mode, second):
    child = start(mode)
    time.sleep(0.1)  # into the long call
    child.send_signal(signal.SIGTERM)
    assert "SIGTERM" in child.stderr.readline()
    began = time.monotonic()
    child.send_signal(second)
    child.communicate(timeout=20)
    assert child.returncode == 128 + second
    assert time.monotonic() - began < 3


def test_at_a_prompt_the_second_ctrl_c_interrupts_instead(monkeypatch):
    monkeypatch.setattr(stops, "_interactive", lambda: True)
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_signal_to_a_forked_worker_is_not_the_run_s(capsys):
    with StopSignals() as stop:
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
        time.sleep(0.05)
        assert not stop.requested


def test_a_signal_within_an_inner_block_is_handed_on():
    with StopSignals() as outer:
        with StopSignals() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
            assert inner.requested and not outer.requested
        with pytest.raises(RunStopped, match="stopped by SIGTERM after all; run the same command"):
            outer.check("after all")
    with StopSignals() as later:
        later.check("never")
