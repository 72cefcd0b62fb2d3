"""The few things that every benchmark does: compile apart, run rivals in turns, note memory, write.

A case of a race gives `Rival`s, functions with their arguments; `race` compiles each, runs them in
turns (A B A B) and writes medians, ratios, compile times and working memory. A case of `memory`
gives `Shape`s of programs that are compiled and never run.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import tyro

from dd_jax.cli.allocator import keep_memory
from dd_jax.errors import unknown
from dd_jax.report.result import device_name, git_commit
from dd_jax.versions import versions

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True)
class Options:
    """Which benchmarks, and how large.

    Attributes:
      cases: names; without any, they are listed.
      ipc: images per class of the set.
      width: of the networks; by default the official one, and 32 where memory is counted.
      steps: of inner loops.
      rounds: how often every rival is timed.
      only: of the rivals, with commas between them.
      write: whether experiments/benchmarks/results is written.
    """

    cases: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    ipc: int = 1
    width: int | None = None
    steps: int = 10
    rounds: int = 5
    only: str | None = None
    write: bool = True


class Rival(NamedTuple):
    """A function and its arguments; `jit=False` for a Python loop around compiled steps."""

    fn: Callable
    args: tuple = ()
    jit: bool = True


class Shape(NamedTuple):
    """A program whose working memory is asked for: what tells it apart, and shapes of arguments."""

    fields: Mapping[str, Any]
    fn: Callable
    args: tuple


def race(
    name: str, rivals: Mapping[str, Rival], options: Options, *,
    derived: Callable[[Mapping[str, float]], Mapping[str, Any]] | None = None, **more: Any,
) -> dict[str, Any]:
    """Times rivals in turns, prints and writes; the first one is the baseline.

    Args:
      name: of the record, and of its file.
      rivals: the plain writing first.
      options: of the command.
      derived: (median seconds by rival) -> what else is recorded of them.
      **more: JSON-able; added to the record.

    Returns:
      The record.
    """
    kept = keep_memory()
    asked = options.only.split(",") if options.only else list(rivals)
    for rival in asked:
        if rival not in rivals:
            raise unknown("rival", rival, rivals)
    calls, first, used = {}, {}, {}
    for rival in asked:
        calls[rival], first[rival], used[rival] = ready(rivals[rival])
    seconds = in_turns(calls, rounds=options.rounds)
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    baseline = asked[0]
    record = {
        "baseline": baseline,
        "median_seconds": {k: round(v, 5) for k, v in medians.items()},
        "ratio_to_baseline": {k: round(medians[baseline] / v, 2) for k, v in medians.items()},
        # A loop in Python compiles in its first call, which runs as well.
        "compile_seconds": {k: round(v if rivals[k].jit else max(0.0, v - medians[k]), 2)
                            for k, v in first.items()},
        "working_memory_bytes": used, "rounds": options.rounds, "allocator_keeps_memory": kept,
        **more, **(derived(medians) if derived else {}),
    }
    for k, v in medians.items():
        print(f"{name:28} {k:24} {1e3 * v:9.2f} ms  compile {record['compile_seconds'][k]:6.2f} s"
              f"  {medians[baseline] / v:5.2f}x of {baseline}", flush=True)
    suffix = "_" + "_".join(asked) if options.only else ""
    return write(name + suffix, record, keep=options.write)


def ready(rival: Rival) -> tuple[Callable[[], Any], float, int | None]:
    """A call that has run once, the seconds to compile (or of its first call), and bytes."""
    start = time.perf_counter()
    if not rival.jit:
        jax.block_until_ready(rival.fn(*rival.args))
        return lambda: rival.fn(*rival.args), time.perf_counter() - start, None
    program = jax.jit(rival.fn).lower(*rival.args).compile()
    seconds = time.perf_counter() - start
    jax.block_until_ready(program(*rival.args))  # the first call pages its memory in
    return lambda: program(*rival.args), seconds, program.memory_analysis().temp_size_in_bytes


def in_turns(rivals: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Calls the rivals one after another, `rounds` times; seconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def memory(name: str, shapes: Iterable[Shape], options: Options, *, lines: str | None = None,
           against: str = "", **more: Any) -> dict[str, Any]:
    """Working memory of programs by the compiler's own analysis: nothing is run.

    Args:
      name: of the record, and of its file.
      shapes: the programs.
      options: of the command.
      lines: a field; draws a plot with a line for each of its values, beside the JSON.
      against: the field along its horizontal axis.
      **more: JSON-able; added to the record.

    Returns:
      The record.
    """
    rows = []
    for fields, fn, args in shapes:
        program = jax.jit(fn).lower(*args).compile()
        rows.append({**fields, "bytes": program.memory_analysis().temp_size_in_bytes})
        print(f"{name:24} {' '.join(f'{k} {v}' for k, v in fields.items()):52} "
              f"{rows[-1]['bytes'] / 1e6:9.1f} MB", flush=True)
    record = write(name, {**more, "rows": rows}, keep=options.write)
    if lines is not None and options.write:
        _plot(record, lines, against)
    return record


def write(name: str, record: Mapping[str, Any], *, keep: bool = True) -> dict[str, Any]:
    """Writes a benchmark's record, with device and versions, as JSON; returns what was written."""
    whole = {"benchmark": name, **record, "device": device_name(), "versions": versions(),
             "git_commit": git_commit()}
    if keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{name}_{device_name().split()[0].lower()}.json"
        path.write_text(json.dumps(whole, indent=2) + "\n")
    return whole


def _plot(record: Mapping[str, Any], lines: str, against: str) -> None:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5))
    for name in dict.fromkeys(row[lines] for row in record["rows"]):
        mine = [row for row in record["rows"] if row[lines] == name]
        axes.plot([r[against] for r in mine], [r["bytes"] / 1e6 for r in mine], "o-", label=name)
    axes.set(xlabel=against, ylabel="working memory / MB", xscale="log", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / f"{record['benchmark']}.png", dpi=120)
    plt.close(figure)
