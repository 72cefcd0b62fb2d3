"""Runs the cells of the table one at a time on a quiet machine.

    python -m experiments.campaign                           all cells, to their end
    python -m experiments.campaign --minutes 55              a stretch; the next one goes on there
    python -m experiments.campaign --cells dm_ipc10,frepo_ipc10

To be run from the checkout's root. A cell of the CPU protocol takes about five minutes of
distilling and three of testing on two cores. Each is the command `python -m dd_jax distill ...` in
a run folder whose name tells its settings apart, so a cell that was stopped or killed goes on where
it was. What a method needs beforehand, such as the experts that mtt, tesla and att share, is made
by the first cell that asks and kept in runs/artefacts, with the baselines of each test.

A figure whose settings and test are those of today's preset is left alone. One that has cost more
than today's would is kept as well, unless `--replace` is given. Nothing is deleted: run folders of
older settings stay where they are. Exit codes: 0 all done, 1 a cell failed, 75 time is over and the
same command goes on.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tyro

from dd_jax.data import load
from dd_jax.errors import ConfigError, DDJaxError
from dd_jax.report.result import percent, read_result, write_result
from dd_jax.run.jsonfile import read_json, write_json
from dd_jax.run.stop import EXIT_STOPPED, StopSignals
from experiments import cells, table
from experiments.budgets import exceeds
from experiments.cells import Cell, Planned
from experiments.quiet import Clock, Ended, supervised, wait_until_quiet

LEAST_SECONDS = 60.0  # with less than that left no cell is begun


@dataclasses.dataclass(frozen=True)
class Options:
    """Which cells, and for how long.

    Attributes:
      cells: names with commas between them, such as dm_ipc1,frepo_ipc10; all by default.
      minutes: after which the cell that runs is asked to save and stop; no end by default.
      protocol: "cpu" or "official".
      data: as on the command line.
      full: train on the full data as well, once for each test.
      read_out: also by the method's own kernel (leave it off for rfad_ipc10 on a CPU).
      load: cells begin while the load average is not above it; by default half the cores.
      replace: write over figures that have cost more than today's would.
      runs: folder of the run folders and of artefacts.
      results: folder of the figures, and of the table beside it.
    """

    cells: str | None = None
    minutes: float | None = None
    protocol: str = "cpu"
    data: str = "fashion_mnist"
    full: bool = True
    read_out: bool = True
    load: float | None = None
    replace: bool = False
    runs: pathlib.Path = pathlib.Path("runs")
    results: pathlib.Path = table.RESULTS


def tell(line: str) -> None:
    """Says one line at once."""
    print(line, flush=True)


class Campaign:
    """The cells of one command, and what becomes of them.

    Args:
      options: of the command.
      data: what the real set calls itself, in files and folders.
      plan: (cell) -> today's settings.
      words: (cell, run folder) -> the command that leaves result.json there.
      clock: of time and load.
      stopped: () -> whether the whole campaign shall stop.
    """

    def __init__(
        self, options: Options, *, data: str, plan: Callable[[Cell], Planned],
        words: Callable[[Cell, pathlib.Path], list[str]], clock: Clock | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ):
        self.options, self.data, self.plan, self.words = options, data, plan, words
        self.clock = clock or Clock()
        self.stopped = stopped
        self.bound = (os.cpu_count() or 1) / 2 if options.load is None else options.load
        minutes = float("inf") if options.minutes is None else options.minutes
        self.until = self.clock.now() + 60 * minutes

    def over(self) -> bool:
        """Whether what runs shall end."""
        return self.stopped() or self.clock.now() >= self.until

    def run(self, asked: list[Cell]) -> dict[str, str]:
        """Every cell in turn; what became of each: done, current, kept, failed or later."""
        found: dict[str, str] = {}
        for cell in asked:
            left = self.until - self.clock.now()
            if self.stopped() or left < LEAST_SECONDS:
                found[cell.name] = "later"
                continue
            try:
                found[cell.name] = self.one(cell)
            except DDJaxError as error:
                tell(f"{cell.name}: {type(error).__name__}: {error}")
                found[cell.name] = "failed"
        return found

    def place(self, cell: Cell) -> pathlib.Path:
        """Of the cell's figure."""
        name = f"{cell.name}_{self.options.protocol}.json"
        return self.options.results / self.data / name

    def one(self, cell: Cell) -> str:
        """One cell: left alone, or run; what became of it."""
        today, place = self.plan(cell), self.place(cell)
        older = read_result(place) if place.exists() else None
        if older is not None and (said := self._stays(cell, older, today)):
            return said
        name = f"{self.data}_{cell.name}_{self.options.protocol}_{today.digest}"
        folder = self.options.runs / name
        before = wait_until_quiet(self.bound, self.clock, over=self.over, tell=tell)
        if before is None:
            return "later"
        tell(f"{cell.name}: load {before:.2f}, in {folder}")
        diary = Diary(folder.with_name(f"{folder.name}.load.json"), before)
        ended = supervised(self.words(cell, folder), log=folder.with_name(f"{folder.name}.log"),
                           clock=self.clock, over=self.over)
        diary.close(ended, self.clock.load())
        if ended.later:
            tell(f"{cell.name}: stopped after {ended.seconds:.0f} s, goes on next time")
            return "later"
        if ended.code != 0:
            tell(f"{cell.name}: exit code {ended.code}, see {folder}.log")
            return "failed"
        result = {**read_result(folder / "result.json"), "load": diary.told(self.bound),
                  "test_steps": today.budget.test_steps}
        if older is not None:
            tell(f"{cell.name}: replaces {_accuracy(older)} in {place}")
        write_result(place, result)
        tell(f"{cell.name}: {_accuracy(result)} in {ended.seconds:.0f} s")
        return "done"

    def _stays(self, cell: Cell, older: Mapping[str, Any], today: Planned) -> str | None:
        """"current" or "kept" for a figure that is left alone, None for one to be made again."""
        changes = cells.outdated(older, today)
        lacks = self.options.full and not today.linear and older["full_mean"] is None
        if not changes and not lacks:
            tell(f"{cell.name}: {_accuracy(older)}, current")
            return "current"
        more = exceeds(cells.cost(older, today), today.budget)
        if more and not self.options.replace:
            tell(f"{cell.name}: {_accuracy(older)} is kept, it has cost more than today's preset "
                 f"would ({', '.join(more)}); --replace writes over it")
            return "kept"
        tell(f"{cell.name}: again, " + (", ".join(changes[:6]) or "its test's ceiling is missing"))
        return None


class Diary:
    """The loads of all stretches of a run, beside its folder, so that a kill loses none.

    Args:
      path: the file.
      before: the load average before this stretch.
    """

    def __init__(self, path: pathlib.Path, before: float):
        self.path = path
        self.stretches: list[dict[str, Any]] = []
        try:
            self.stretches = [dict(s) for s in read_json(path)["stretches"]]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # of a first stretch, or damaged: loads are told, never relied on
        self.stretches.append({"before": round(before, 2)})
        self._write()

    def close(self, ended: Ended, after: float) -> None:
        """Notes how this stretch ended."""
        self.stretches[-1] |= {"most": round(ended.most_load, 2), "after": round(after, 2),
                               "seconds": round(ended.seconds, 1), "code": ended.code}
        self._write()

    def told(self, bound: float) -> dict[str, Any]:
        """What a figure tells of the load: the largest before and during, and that at the end."""
        return {"before": max(s.get("before", 0.0) for s in self.stretches),
                "most": max(s.get("most", 0.0) for s in self.stretches),
                "after": self.stretches[-1]["after"], "bound": bound,
                "stretches": len(self.stretches)}

    def _write(self) -> None:
        write_json(self.path, {"stretches": self.stretches})


def _accuracy(result: Mapping[str, Any]) -> str:
    return percent(result["accuracy_mean"], result["accuracy_std"])


def exit_code(found: Mapping[str, str]) -> int:
    """Of what became of the cells: 75 before 1, since the same command goes on."""
    became = set(found.values())
    return EXIT_STOPPED if "later" in became else int("failed" in became)


def main(options: Options) -> int:
    """Runs the campaign and writes the table; returns the exit code."""
    if options.minutes is not None and not options.minutes > 0:
        raise ConfigError(f"minutes is {options.minutes}, expected more than 0",
                          fix="pass --minutes 30")
    asked, data = cells.chosen(options.cells), load(options.data)

    def words(cell: Cell, folder: pathlib.Path) -> list[str]:
        told = cells.command(cell, data=options.data, protocol=options.protocol,
                             full=options.full, read_out=options.read_out)
        return [sys.executable, "-m", "dd_jax", *told, "--workdir", str(folder)]

    with StopSignals() as stop:
        campaign = Campaign(options, data=data.train.spec.name, words=words,
                            stopped=lambda: stop.requested,
                            plan=lambda cell: cells.planned(cell, data, options.protocol))
        found = campaign.run(asked)
    table.render(options.results)
    for kind in dict.fromkeys(found.values()):
        tell(f"{kind}: " + ", ".join(name for name, how in found.items() if how == kind))
    if exit_code(found) == EXIT_STOPPED:
        tell("go on: python -m experiments.campaign " + shlex.join(sys.argv[1:]))
    return exit_code(found)


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Options)))
    except DDJaxError as error:
        sys.exit(f"{type(error).__name__}: {error}")
