"""Timing of compiled programs: compile time apart from steady time, rivals in turns (A B A B)."""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from dd_jax.report.result import device_name, git_commit
from dd_jax.versions import versions

RESULTS = pathlib.Path(__file__).parent / "results"


def write(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a benchmark's record, with device and versions, as JSON; returns what was written."""
    whole = {"benchmark": name, **record, "device": device_name(), "versions": versions(),
             "git_commit": git_commit()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}_{device_name().split()[0].lower()}.json"
    path.write_text(json.dumps(whole, indent=2) + "\n")
    return whole


def compiled(fn: Callable, *args: Any, **kwargs: Any) -> tuple[Callable, float]:
    """The jitted function and the seconds that its first call took."""
    jitted = jax.jit(fn, **kwargs)
    start = time.perf_counter()
    jax.block_until_ready(jitted(*args))
    return jitted, time.perf_counter() - start


def in_turns(rivals: Mapping[str, Callable[[], Any]], *, rounds: int = 7) -> dict[str, list[float]]:
    """Calls the rivals one after another, `rounds` times; seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(name: str, seconds: Mapping[str, list[float]], *, compile_seconds: Mapping[str, float],
           baseline: str, **more: Any) -> dict[str, Any]:
    """Prints medians and ratios to `baseline` and writes them as JSON; returns the record."""
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    record = {
        "baseline": baseline,
        "median_seconds": {k: round(v, 5) for k, v in medians.items()},
        "ratio_to_baseline": {k: round(medians[baseline] / v, 2) for k, v in medians.items()},
        "compile_seconds": {k: round(v, 2) for k, v in compile_seconds.items()},
        "rounds": len(next(iter(seconds.values()))), **more,
    }
    for key, value in medians.items():
        compile_time = compile_seconds.get(key)
        first = "" if compile_time is None else f"  compile {compile_time:6.2f} s"
        print(f"{name:28} {key:24} {1e3 * value:9.2f} ms{first}  "
              f"{medians[baseline] / value:5.2f}x of {baseline}")
    return write(name, record)
