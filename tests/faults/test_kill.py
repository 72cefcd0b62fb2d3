"""kill -9 at random moments, then the same command again: the same file, bit for bit.

Run as a program for more moments, in a run of each of five families: see `main`.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

SMALL = ["frepo", "--width", "4", "--depth", "1", "--batch-size", "8", "--steps", "400",
         "--save-every", "20"]
# Its experts are trained in the same run: a kill may find it there, between, in either stage's
# loop, or in the test of the finished set.
STAGED = ["mtt", "--width", "4", "--depth", "1", "--expert-count", "3", "--expert-epochs", "3",
          "--expert-batch-size", "8", "--span", "1", "--max-start", "2", "--inner-steps", "2",
          "--augmentation", "none", "--steps", "60", "--save-every", "10", "--log-every", "5",
          "--stages", "2", "--evaluation-width", "4", "--evaluation-epochs", "20", "--seeds", "2"]
# What is there when the clock of a kill starts, under the folder of the run or of its artefacts.
MOMENTS = {
    "an expert": "experts-*/expert_00000.safetensors", "the first loop": "stage_1/metrics.jsonl",
    "the second loop": "stage_2/checkpoints/step_*", "the test": "set.safetensors",
}


def command(workdir: pathlib.Path, data: str, settings: list[str]) -> list[str]:
    return [sys.executable, "-m", "dd_jax", "distill", *settings, "--data", data,
            "--workdir", str(workdir), "--artefacts", str(artefacts_of(workdir))]


def artefacts_of(workdir: pathlib.Path) -> pathlib.Path:
    return workdir.with_name(f"{workdir.name}_artefacts")


def environment(workdir: pathlib.Path, kept: bool) -> dict[str, str]:
    """Programs are those of the run that nobody kills, in a copy: a kill may leave one half."""
    programs = workdir.with_name("programs")
    if not kept:
        copy = workdir.with_name("copy_of_programs")
        shutil.rmtree(copy, ignore_errors=True)
        programs = shutil.copytree(programs, copy) if programs.exists() else copy
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def finish(workdir, data, settings) -> bytes:
    kept = workdir.name == "whole"
    subprocess.run(command(workdir, data, settings), check=True, capture_output=True, timeout=600,
                   env=environment(workdir, kept))
    return (workdir / "set.safetensors").read_bytes()


def killed(workdir, data, settings, *, pattern: str, after: float) -> None:
    """Starts the run and kills it `after` seconds after a file of that name is there."""
    child = subprocess.Popen(command(workdir, data, settings), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, env=environment(workdir, False))
    if pattern:
        wait_for(workdir, pattern)
    try:
        child.wait(after)
        print(f"  finished before {after:.1f} s")
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
        saved = sorted(p.name for p in workdir.rglob("step_*"))
        print(f"  killed after {after:.1f} s; checkpoints {saved[-2:]}")


def kill_and_continue(workdir, data, settings, *, kills: int, window: tuple, seed: int) -> bytes:
    """Starts the run `kills` times, kills each at a random time in `window`, then finishes it.

    The last kill's time counts from the first line of metrics: it falls into the loop.
    """
    moments = random.Random(seed)
    for kill in range(kills):
        last = kill == kills - 1
        killed(workdir, data, settings, pattern="metrics.jsonl" if last else "",
               after=moments.uniform(*((0.0, 0.5) if last else window)))
    return finish(workdir, data, settings)


def wait_for(workdir: pathlib.Path, pattern: str) -> None:
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        if any(path.stat().st_size for folder in (workdir, artefacts_of(workdir))
               for path in folder.glob(pattern)):
            return
        time.sleep(0.02)


def toy_file(folder: pathlib.Path) -> str:
    rng = np.random.default_rng(0)
    np.savez(folder / "toy.npz", images=rng.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8),
             labels=np.arange(40) % 2)
    return str(folder / "toy.npz")


def made(folder: pathlib.Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob(pattern)}


def figures(workdir: pathlib.Path) -> dict:
    result = json.loads((workdir / "result.json").read_text())
    assert {"distill_seconds", "evaluate_seconds", "command", "accuracies"} <= result.keys()
    return {name: value for name, value in result.items()
            if not name.endswith("seconds") and name not in ("command", "date")}


def test_a_killed_run_ends_in_the_same_bits(tmp_path):
    data, settings = toy_file(tmp_path), [*SMALL, "--no-evaluate"]
    whole = finish(tmp_path / "whole", data, settings)
    assert kill_and_continue(tmp_path / "killed", data, settings, kills=3, window=(0.0, 6.0),
                             seed=1) == whole
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert metrics[0] == metrics[1]


def test_a_staged_run_killed_everywhere_ends_in_the_same_bits_and_figures(tmp_path):
    data, random_after = toy_file(tmp_path), random.Random(2)
    whole, parts = tmp_path / "whole", tmp_path / "killed"
    finish(whole, data, STAGED)
    for pattern in MOMENTS.values():
        killed(parts, data, STAGED, pattern=pattern, after=random_after.uniform(0.0, 0.4))
    finish(parts, data, STAGED)
    for pattern in ("set.safetensors", "metrics.jsonl"):
        assert made(parts, pattern) == made(whole, pattern) and made(whole, pattern)
    experts = made(artefacts_of(whole), "expert_*.safetensors")
    assert len(experts) == 6 and experts == made(artefacts_of(parts), "expert_*.safetensors")
    assert figures(parts) == figures(whole)


def test_sigterm_saves_and_exits_with_75(tmp_path):
    data = toy_file(tmp_path)
    settings = [*SMALL, "--no-evaluate", "--steps", "100000", "--save-every", "100000"]
    child = subprocess.Popen(command(tmp_path / "run", data, settings), stderr=subprocess.PIPE,
                             text=True)
    wait_for(tmp_path / "run", "metrics.jsonl")
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 75, err
    assert "again to continue" in err and "Traceback" not in err
    assert list((tmp_path / "run" / "checkpoints").glob("step_*"))


# Of each family one, small.
TESTED = ["--evaluation-width", "4", "--evaluation-epochs", "300", "--seeds", "2"]
LOOP = ["--width", "4", "--depth", "1", "--save-every", "10", "--log-every", "5"]
FAMILIES = {
    "frepo": ["frepo", *LOOP, "--batch-size", "8", "--steps", "300", "--evaluation-width", "4",
              "--evaluation-steps", "300", "--seeds", "2"],
    "dc": ["dc", *LOOP, "--batch-size", "8", "--networks", "100", *TESTED],
    "dm": ["dm", *LOOP, "--batch-size", "8", "--steps", "300", *TESTED],
    "mtt": STAGED,
    "rat_bptt": ["rat_bptt", *LOOP, "--batch-size", "8", "--steps", "100", "--seeds", "2"],
}


def killed_often(root: pathlib.Path, data: str, settings: list[str], kills: int) -> bool:
    """Kills a run at random moments of its whole length, and compares all it leaves.

    Half of the moments count from the start of the command; the others from what `MOMENTS` names,
    in turn, since later starts go on far from the beginning.
    """
    random_after, whole, parts = random.Random(kills), root / "whole", root / "killed"
    begun = time.monotonic()
    finish(whole, data, settings)
    length = time.monotonic() - begun
    staged = "--stages" in settings
    patterns = [*MOMENTS.values()] if staged else ["metrics.jsonl", "set.safetensors"]
    early, late = kills // 2, kills - kills // 2
    for _ in range(early):
        killed(parts, data, settings, pattern="",
               after=random_after.uniform(0.0, min(length / 2, 15.0)))
    for kill in range(late):
        killed(parts, data, settings, pattern=patterns[kill * len(patterns) // late],
               after=random_after.uniform(0.0, 0.6))
    finish(parts, data, settings)
    same = figures(parts) == figures(whole) and all(
        made(parts, pattern) == made(whole, pattern)
        for pattern in ("set.safetensors", "metrics.jsonl"))
    experts = "expert_*.safetensors"
    return same and made(artefacts_of(parts), experts) == made(artefacts_of(whole), experts)


def main(kills: int, names: list[str]) -> None:
    """`python -m tests.faults.test_kill 20 dm mtt`: twenty moments of each; all by default."""
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            same = killed_often(root, toy_file(root), FAMILIES[name], kills)
            print(f"{name}: {kills} kills, {'bit for bit equal' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:])
