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

SMALL = ["--width", "4", "--depth", "1", "--batch-size", "8", "--steps", "400",
         "--save-every", "20"]


def command(workdir: pathlib.Path, data: str, settings: list[str]) -> list[str]:
    return [sys.executable, "-m", "dd_jax", "distill", "frepo", "--data", data, "--no-evaluate",
            "--workdir", str(workdir), *settings]


def finish(workdir, data, settings) -> bytes:
    subprocess.run(command(workdir, data, settings), check=True, capture_output=True, timeout=600)
    return (workdir / "set.safetensors").read_bytes()


def kill_and_continue(workdir, data, settings, *, kills: int, window: tuple, seed: int) -> bytes:
    """Starts the run `kills` times, kills each at a random time in `window`, then finishes it."""
    moments = random.Random(seed)
    for _ in range(kills):
        child = subprocess.Popen(command(workdir, data, settings), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        after = moments.uniform(*window)
        try:
            child.wait(after)
            print(f"  finished before {after:.1f} s")
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            saved = sorted(p.name for p in (workdir / "checkpoints").glob("step_*"))
            print(f"  killed after {after:.1f} s; checkpoints {saved[-2:]}")
    return finish(workdir, data, settings)


def toy_file(folder: pathlib.Path) -> str:
    rng = np.random.default_rng(0)
    np.savez(folder / "toy.npz", images=rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8),
             labels=np.arange(40) % 2)
    return str(folder / "toy.npz")


def test_killed_runs_end_in_the_same_bits(tmp_path):
    data = toy_file(tmp_path)
    whole = finish(tmp_path / "whole", data, SMALL)
    start = time.perf_counter()
    killed = kill_and_continue(tmp_path / "killed", data, SMALL, kills=3, window=(0.0, 12.0),
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
    metrics = tmp_path / "run" / "metrics.jsonl"
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    assert "again to continue" in err and "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints").glob("step_*"))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    large = ["--steps", "900", "--save-every", "20", "--batch-size", "64"]
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        uninterrupted = finish(root / "whole", "embedded", large)
        # From the start of the program, through the first step, to some saves later.
        continued = kill_and_continue(root / "killed", "embedded", large, kills=count,
                                      window=(1.0, 9.0), seed=int(time.time()))
        print("bit for bit equal" if continued == uninterrupted else "DIFFERENT")
