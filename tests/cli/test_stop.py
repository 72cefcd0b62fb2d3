"""A signal ends a command wherever it is: with 75, what is finished told, and no crash after it."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from dd_jax.run.stop import EXIT_STOPPED

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = """
import atexit, hashlib, sys, time, types
from dd_jax import __main__ as entry
from dd_jax.cli import main as cli, stop
from dd_jax.run.stop import StopSignals
def deaf():  # compiled code that lets no Python handler run
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000_000)
def run(words):
    print("ready", flush=True)
    try:
        if words == ["deaf"]:
            stop.GRACE = 0.3
        if words[0] in ("deaf", "stubborn"):
            deaf()
        if words == ["within"]:
            with StopSignals() as within:
                while not within.requested:
                    time.sleep(0.01)
            print("went on")
        time.sleep(30)
    finally:
        print("told at the end")
atexit.register(print, "the way out of Python")
sys.modules["waiting"] = types.SimpleNamespace(run=run)
cli._COMMANDS["wait"] = ("waiting", "run", "")
entry.script()
"""


def start(mode: str) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", COMMAND, "wait", mode], text=True, cwd=ROOT,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["python", "within", "deaf"])
def test_the_first_signal_ends_a_command_with_75(mode, number):
    child = start(mode)
    time.sleep(0.1)
    began = time.monotonic()
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert child.returncode == EXIT_STOPPED, (out, err)
    assert time.monotonic() - began < 5
    name = signal.Signals(number).name
    assert err.endswith(f"RunStopped: stopped by {name}; run the same command again to continue\n")
    assert "Traceback" not in err and out == ("" if mode == "deaf" else "told at the end\n")


def test_the_second_signal_ends_it_at_once():
    child = start("stubborn")
    for number in (signal.SIGTERM, signal.SIGINT):
        time.sleep(0.1)
        child.send_signal(number)
    child.communicate(timeout=20)
    assert child.returncode == 128 + signal.SIGINT
