"""kill -9 at random moments, then the same command again: the same file, bit for bit.

Run as a program for more moments and a larger run: `python -m tests.faults.test_kill 10`.
"""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

SMALL = ["frepo", "--width", "4", "--depth", "1", "--batch-size", "8", "--steps", "400",
         "--save-every", "20"]
# Its experts are trained in the same run: a kill may find it there, between, or in the loop.
EXPERTS = ["mtt", "--width", "4", "--depth", "1", "--expert-count", "3", "--expert-epochs", "3",
           "--expert-batch-size", "8", "--span", "1", "--max-start", "2", "--inner-steps", "3",
           "--steps", "400", "--save-every", "20"]


def command(workdir: pathlib.Path, data: str, settings: list[str]) -> list[str]:
    return [sys.executable, "-m", "dd_jax", "distill", *settings, "--data", data, "--no-evaluate",
            "--workdir", str(workdir)]


def finish(workdir, data, settings) -> bytes:
    subprocess.run(command(workdir, data, settings), check=True, capture_output=True, timeout=600)
    return (workdir / "set.safetensors").read_bytes()


def kill_and_continue(workdir, data, settings, *, kills: int, window: tuple, seed: int) -> bytes:
    """Starts the run `kills` times, kills each at a random time in `window`, then finishes it.

    The last kill's time counts from the first line of metrics: it falls into the loop.
    """
    moments = random.Random(seed)
    for kill in range(kills):
        child = subprocess.Popen(command(workdir, data, settings), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        after = moments.uniform(*window)
        if kill == kills - 1:
            wait_for_metrics(workdir)
            after = moments.uniform(0.0, 0.5)
        try:
            child.wait(after)
            print(f"  finished before {after:.1f} s")
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            saved = sorted(p.name for p in (workdir / "checkpoints").glob("step_*"))
            print(f"  killed after {after:.1f} s; checkpoints {saved[-2:]}")
    return finish(workdir, data, settings)


def wait_for_metrics(workdir: pathlib.Path) -> None:
    metrics, limit = workdir / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < limit and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)


def toy_file(folder: pathlib.Path) -> str:
    rng = np.random.default_rng(0)
    np.savez(folder / "toy.npz", images=rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8),
             labels=np.arange(40) % 2)
    return str(folder / "toy.npz")


@pytest.mark.parametrize("settings", [SMALL, EXPERTS], ids=["frepo", "mtt with its experts"])
def test_killed_runs_end_in_the_same_bits(settings, tmp_path):
    data = toy_file(tmp_path)
    whole = finish(tmp_path / "whole", data, settings)
    start = time.perf_counter()
    killed = kill_and_continue(tmp_path / "killed", data, settings, kills=3, window=(0.0, 12.0),
                               seed=1)
    assert killed == whole
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]
    assert time.perf_counter() - start < 600


def test_sigterm_saves_and_exits_with_75(tmp_path):
    data = toy_file(tmp_path)
    settings = [*SMALL, "--steps", "100000", "--save-every", "100000"]
    child = subprocess.Popen(command(tmp_path / "run", data, settings), stderr=subprocess.PIPE,
                             text=True)
    wait_for_metrics(tmp_path / "run")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    assert "again to continue" in err and "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints").glob("step_*"))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    large = ["frepo", "--steps", "900", "--save-every", "20", "--batch-size", "64"]
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        uninterrupted = finish(root / "whole", "embedded", large)
        # From the start of the program, through the first step, to some saves later.
        continued = kill_and_continue(root / "killed", "embedded", large, kills=count,
                                      window=(1.0, 9.0), seed=int(time.time()))
        print("bit for bit equal" if continued == uninterrupted else "DIFFERENT")
