"""Published budgets on a GPU that is there for minutes at a time, in pieces that continue.

    python -m experiments.gpu                                       what there is, best first
    python -m experiments.gpu frepo_ipc1 --piece 1 --seconds 540
    python -m experiments.gpu speed_dm --seconds 540                steps per second beside PyTorch
    python -m experiments.gpu dm_ipc1 --piece 1 --share 0.01 --width 8      a trial on a CPU

To be run from the checkout's root; experiments/gpu.md is the list, with what to carry. A piece ends
by itself before `--seconds` are over. It leaves its JSON file and the parts that the next piece
needs in `--out`, by default the folder in $OUT; the last one leaves the result and the set as well.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import tyro

import dd_jax as dd
from dd_jax import methods
from dd_jax.distill.plan import complete
from dd_jax.errors import ConfigError, DDJaxError, unknown
from dd_jax.report.result import build_result, device_name, git_commit, write_result
from dd_jax.run.jsonfile import parsed
from dd_jax.versions import versions
from experiments import gpu_speed
from experiments.budgets import shortened, shortened_test
from experiments.cells import as_json
from experiments.gpu_carry import pack, unpack
from experiments.gpu_piece import PROGRESS, SET, Run, figures

_BEGUN = time.monotonic()  # reading the packages takes seconds of a piece, too
RESERVE = 20.0  # seconds to save, pack and leave


class Job(NamedTuple):
    """One figure: a method at a budget under its official protocol, with changes where named."""

    method: str
    ipc: int
    changes: Mapping[str, Any] = {}


METHODS = ("frepo", "rcig", "rfad", "idc", "dsa", "dm", "m3d", "ncfm", "linba", "rat_bptt")
JOBS = {f"{method}_ipc{ipc}": Job(method, ipc) for method in METHODS for ipc in (1, 10, 50)}


@dataclasses.dataclass(frozen=True)
class Options:
    """One piece.

    Attributes:
      job: a name of the list; without one, it is printed.
      piece: which piece of the run this is, from 1.
      seconds: that it may take, from the start of the process.
      share: of the steps and of the test; below 1 for trials.
      width: of all networks, instead of the official one; for trials.
      changes: JSON of other settings that differ from the official ones.
      data: as on the command line.
      seed: of the run.
      full: test one network on all real images as well.
      folder: of the runs' folders.
      carry: folder with the parts that the last piece left, read where the run's folder is missing.
      out: where results and parts are left; by default the folder in $OUT, or "out" in `folder`.
    """

    job: Annotated[str | None, tyro.conf.Positional] = None
    piece: int = 1
    seconds: float = 540.0
    share: float = 1.0
    width: int | None = None
    changes: str = "{}"
    data: str = "fashion_mnist"
    seed: int = 0
    full: bool = True
    folder: pathlib.Path = pathlib.Path("runs/gpu")
    carry: pathlib.Path = pathlib.Path("runs/gpu/carry")
    out: pathlib.Path | None = None

    @property
    def place(self) -> pathlib.Path:
        """Where results and parts are left."""
        if self.out is not None:
            return self.out
        return pathlib.Path(os.environ.get("OUT") or self.folder / "out")


def parsed_changes(text: str) -> dict[str, Any]:
    """Settings by name, from JSON.

    Raises:
      ConfigError: no JSON object.
    """
    try:
        return parsed(text.encode())
    except ValueError as error:
        raise ConfigError(f"changes is {text!r}, expected a JSON object: {error}",
                          fix="""pass for example --changes '{"batch_size": 64}'""") from error


def settings_of(job: Job, options: Options) -> Any:
    """The official settings of a job with the changes that were asked for.

    Raises:
      ConfigError: settings that cannot be.
    """
    asked = parsed_changes(options.changes)
    official = methods.preset(job.method, "official", job.ipc)
    names = {field.name for field in dataclasses.fields(official)}
    widths = {} if options.width is None else {
        name: options.width for name in ("width", "evaluation_width") if name in names}
    changed = methods.preset(job.method, "official", job.ipc, **{**job.changes, **widths, **asked})
    return shortened(changed, options.share)


def distillation_piece(name: str, options: Options, clock: Callable[[], float]) -> dict[str, Any]:
    """Runs one piece of a distillation; returns what its JSON file tells."""
    job, out = JOBS[name], options.place
    until = _end(options, clock)
    settings = settings_of(job, options)
    folder = options.folder / name
    if not (folder / PROGRESS).exists():
        unpack(name, options.carry, folder)
    data = dd.data.load(options.data)
    identity = as_json({"job": name, "settings": dataclasses.asdict(settings), "seed": options.seed,
                        "share": options.share, "data": data.train.spec.name})
    run = Run(folder, identity, clock)
    run.begin(options.piece)
    recipe = complete(methods.plan_with(job.method, settings, data), data.train,
                      artefacts=folder / "artefacts")
    protocol = shortened_test(recipe.evaluation, options.share, full=True)

    def left() -> dict[str, Any]:
        return _leave(run, name, options, pack(folder, out), recipe.steps)

    finished = run.distil(recipe, data.train, seed=options.seed, until=until, saved=left)
    finished = finished and run.test(recipe, protocol, data, seed=options.seed, full=options.full,
                                     until=until, length=options.seconds, saved=left)
    run.end()
    told = left()
    if finished:
        _finish(run, job, options, recipe, protocol)
    return {**told, "finished": finished}


def _end(options: Options, clock: Callable[[], float]) -> float:
    """When work has to end, by the clock."""
    begun = _BEGUN if clock is time.monotonic else clock()
    return begun + options.seconds - min(RESERVE, options.seconds / 10)


def _leave(run: Run, name: str, options: Options, carry: dict, steps: int) -> dict[str, Any]:
    """Writes the piece's JSON file and returns what it tells."""
    piece, rate = run.current, run.current.get("steps_per_second")
    speed = rate and rate * (options.seconds - RESERVE)
    told = {
        "job": name, **piece, "steps": steps, "share": options.share,
        "pieces_left": None if not speed else max(0.0, round((steps - piece["to"]) / speed, 1)),
        "tests": run.progress["tests"], "pool_made_anew_at": run.progress["anew"], "carry": carry,
        "settings": run.progress["identity"]["settings"], "device": device_name(),
        "versions": versions(), "git_commit": git_commit(), "command": _command(),
    }
    write_result(options.place / f"{name}_piece{options.piece}.json", told)
    return told


def _command() -> str:
    return "python -m experiments.gpu " + shlex.join(sys.argv[1:])


def _finish(run: Run, job: Job, options: Options, recipe, protocol) -> None:
    """Leaves the result file and the set."""
    distilled = dd.store.load(run.folder / SET)
    published = methods.get(job.method).published.get((distilled.spec.name, job.ipc))
    whole = options.share == 1.0 and options.width is None
    result = build_result(
        method=job.method, data=distilled.spec.name, ipc=job.ipc,
        protocol="official" if whole else f"official, trial of {options.share:g}",
        published=published and published._asdict(), bytes=distilled.stored_bytes,
        seed=options.seed, settings=dict(recipe.settings), evaluation=protocol.plain(),
        pieces=len(run.progress["pieces"]), command=_command(), **figures(run, distilled, protocol))
    write_result(options.place / f"{run.folder.name}_official.json", result)
    shutil.copyfile(run.folder / SET, options.place / f"{run.folder.name}.{SET}")


def listing() -> str:
    """The names of all jobs with their budgets, best first."""
    lines = [f"{name:16} {_length(job)} steps" for name, job in JOBS.items()]
    return "\n".join([*lines, *(f"{name:16} beside PyTorch" for name in gpu_speed.RACES)])


def _length(job: Job) -> str:
    settings = methods.preset(job.method, "official", job.ipc)
    counts = [getattr(settings, name, None) for name in ("steps", "iterations")]
    networks = getattr(settings, "networks", 1) * getattr(settings, "uses", 1)
    return f"{next((count for count in counts if count), networks):>9,}"


def main(options: Options, clock: Callable[[], float] = time.monotonic) -> dict[str, Any] | None:
    """Runs one piece, prints and returns what its JSON file tells."""
    if options.job is None:
        print(listing())
        return None
    if options.job not in (*JOBS, *gpu_speed.RACES):
        raise unknown("job", options.job, [*JOBS, *gpu_speed.RACES])
    if not options.seconds > 0:
        raise ConfigError(f"seconds is {options.seconds}, expected more than 0",
                          fix="pass --seconds 540")
    options.place.mkdir(parents=True, exist_ok=True)
    if options.job in JOBS:
        told = distillation_piece(options.job, options, clock)
    else:
        until = _end(options, clock)
        told = gpu_speed.race(
            options.job, share=options.share, width=options.width, data=options.data,
            artefacts=options.folder / "artefacts", left=lambda: until - clock())
        told["command"] = _command()
        write_result(options.place / f"{options.job}.json", told)
    print(json.dumps({name: value for name, value in told.items() if name != "settings"}))
    return told


if __name__ == "__main__":
    from dd_jax.cli.allocator import keep_memory

    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
