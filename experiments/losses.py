"""Every loss that one live teacher can tell: accuracy of its students, and the time of a step.

    python -m experiments.losses
    python -m experiments.losses --losses kl@4 dkd mse@centred=yes --seeds 5

To be run from the checkout's root, on a machine that does nothing else. One teacher, trained on all
real images, tells students of one set every loss of `labels.losses` in turn, with its usual options
or those that are asked for. Steps, augmentation and seeds of all students are the same, those of
`evaluate`; what a loss trains beside the student is thrown away before the test. Losses that one
teacher cannot tell are listed with the reason.

Steps are timed against those of KL at temperature 4 in the same run: the program of each is
compiled apart, and the two run in turns, A B A B. A step has the teacher's look at its views in it.
"Differs" says whether the means are further apart than the larger of both deviations.

Every loss is written as soon as it is there; the same command again, or one with more losses,
computes only what is missing. Leaves a JSON file and a table in
experiments/results/comparisons/losses.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
import tyro

import dd_jax as dd
from dd_jax.backend import as_key, map_over, own_dtypes
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.tables import print_table
from dd_jax.data import fingerprint
from dd_jax.distill.taught import taught
from dd_jax.distill.teachers import Teacher
from dd_jax.errors import ConfigError, DataError, DDJaxError, require_whole
from dd_jax.evaluate import Evaluation, Protocol
from dd_jax.evaluate.checks import check_testable
from dd_jax.evaluate.evaluate import network_keys
from dd_jax.evaluate.evaluate import test_accuracy as accuracy_on
from dd_jax.labels.losses import LOSSES, NamedLoss, parse
from dd_jax.report.result import check_place, percent
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.types import Split
from experiments import students
from experiments.benchmarks.timing import Rival, in_turns, ready
from experiments.kept_cells import Kept, identity
from experiments.lessons import EmptyRoom, Lesson, Room, lesson, trained, untold
from experiments.students import Common, NamedSet, accuracy

FOLDER = pathlib.Path(__file__).parent / "results" / "comparisons" / "losses"
BASELINE = "kl@4"


@dataclasses.dataclass(frozen=True)
class Options(Common):
    """One table.

    Attributes:
      ipc: of random real images.
      set: a saved set, or a run folder, in their place.
      losses: as of --supervision, with blanks between them; all of `labels.losses` by default.
      teacher: a network; teacher_width: of it, the students' by default: a loss of taps needs a
        teacher of the students' shapes.
      steps: of each student; None: as many as the protocol "cpu" has.
      augmentation: of the students, whose views the teacher sees.
      timed_steps: of a training that is timed, at least.
      rounds: how often each is timed.
    """

    ipc: int = 10
    set: pathlib.Path | None = None
    losses: tuple[str, ...] = ()
    teacher: str = "convnet"
    teacher_width: int | None = None
    steps: int | None = None
    augmentation: str = "dsa"
    timed_steps: int = 20
    rounds: int = 5

    def __post_init__(self):
        super().__post_init__()
        for name in ("ipc", "timed_steps", "rounds"):
            require_whole(name, getattr(self, name), example=getattr(Options, name))


def asked(options: Options) -> dict[str, NamedLoss]:
    """Losses by what they are called, the baseline first.

    Raises:
      ConfigError: one that cannot be, or a sum of several.
    """
    found: dict[str, NamedLoss] = {}
    for name in (BASELINE, *(options.losses or LOSSES)):
        loss = parse(name)
        if not isinstance(loss, NamedLoss):
            raise ConfigError(f"{name} is a sum of losses", fix="name single ones")
        if loss not in found.values():  # KL's usual temperature is the baseline's
            found[name] = loss
    return found


class Bench:
    """What all losses share: the set, the test, the teacher when it is first asked for, the clock.

    Attributes:
      made, protocol: the set and its test.
      artefact: of the teacher.
    """

    def __init__(self, options: Options, data: Split):
        self.options, self.data, self.store = options, data, ArtefactStore(options.work)
        if options.set is None:
            students.random_plan(data, options.ipc)
            self.made: NamedSet = students.random_set(data, options.ipc, self.store)
        else:
            self.made = students.saved_set(options.set)
        distilled = self.made.distilled
        self.protocol: Protocol = students.student_protocol(
            self.made, width=options.width, steps=options.steps,
            augmentation=options.augmentation)
        check_testable(distilled, data.test, self.protocol)
        self.artefact = students.teacher_of(
            options.teacher, data, distilled.normaliser, options,
            width=options.teacher_width or options.width)
        self._look(self.artefact.stand_in())

    def _look(self, master: Teacher) -> None:
        """Refuses a teacher of other images or classes; names a weak one."""
        taught(self.made.distilled, [master], loss=parse(BASELINE), protocols=[self.protocol])

    def room_of(self, kind: type[Room], master: Teacher) -> Room:
        """Of the losses' lessons."""
        return kind(master, self.protocol, self.made.distilled, self.data.train)

    @cached_property
    def room(self) -> Room:
        """With the teacher, trained or found."""
        master = self.store.get(self.artefact, self.data.train)
        self._look(master)
        return self.room_of(Room, master)

    def refused(self, loss: NamedLoss) -> str | None:
        """Why a loss cannot be told here; None where it can. Nothing is computed."""
        reason = untold(loss)
        if reason is not None:
            return reason
        synthetic = self.made.distilled.trainable()
        try:
            by = lesson(loss, self.room_of(EmptyRoom, self.artefact.stand_in()))
            jax.eval_shape(partial(trained, by, self.protocol), synthetic, by.supervision,
                           jax.random.key(0))
        except ConfigError as error:
            return str(error)
        return None

    def told_of(self, loss: NamedLoss) -> dict[str, Any]:
        """What a cell depends on: plain values."""
        same = ("seeds", "seed", "timed_steps", "rounds")
        return {"loss": loss.name, "options": dict(loss.options), "set": self.made.sha256,
                "protocol": self.protocol.plain(), "test_sha256": fingerprint(self.data.test),
                "teacher": self.artefact.address(self.data.train),
                **{name: getattr(self.options, name) for name in same}}

    def tested(self, by: Lesson) -> Evaluation:
        """The students of a lesson, with the keys of `evaluate`."""
        start, made = time.perf_counter(), self.made.distilled
        keys = network_keys(as_key(self.options.seed), self.options.seeds)

        @jax.jit
        def program(keys, synthetic, supervision, test, normaliser):
            def one(key):
                variables = trained(by, self.protocol, synthetic, supervision, key)
                return accuracy_on(by.tested, by.own(variables), test, normaliser)

            return map_over(one, keys)

        found = np.asarray(program(keys, made.trainable(), by.supervision, self.data.test,
                                   made.normaliser), np.float64)
        return Evaluation(found, float(found.mean()), float(found.std()),
                          time.perf_counter() - start)

    @property
    def short(self) -> Protocol:
        """The training that is timed."""
        each = self.protocol.varied(epochs=1).steps(self.made.images)
        return self.protocol.varied(epochs=-(-self.options.timed_steps // each))

    def call(self, by: Lesson) -> tuple[Callable[[], Any], float]:
        """(a timed training that has run once, the seconds of its compilation)."""
        run, seconds, _ = ready(Rival(
            partial(trained, by, self.short),
            (self.made.distilled.trainable(), by.supervision, jax.random.key(0))))
        return run, seconds

    @cached_property
    def baseline(self) -> Callable[[], Any]:
        """The timed training of the baseline, compiled once for all."""
        return self.call(lesson(parse(BASELINE), self.room))[0]

    def timed(self, by: Lesson) -> dict[str, Any]:
        """Seconds of a step beside the baseline's: medians over rounds, in turns."""
        run, compiling = self.call(by)
        turns = in_turns({"baseline": self.baseline, "loss": run}, rounds=self.options.rounds)
        steps = self.short.steps(self.made.images)
        step, other = (statistics.median(turns[name]) / steps for name in ("loss", "baseline"))
        return {"step_seconds": step, "baseline_step_seconds": other,
                "compile_seconds": round(compiling, 3), "timed_steps": steps,
                "turns": {name: [round(x, 6) for x in found] for name, found in turns.items()}}

    def measured(self, name: str, loss: NamedLoss) -> dict[str, Any]:
        """The figures of a cell."""
        by = lesson(loss, self.room)
        return {"name": name, "set": self.made.name, "of": loss.of, "takes": loss.targets,
                **students.about(self.artefact, self.room.master), **self.timed(by),
                **students.figures_of(self.tested(by))}


def check_cell(cell: Mapping[str, Any]) -> None:
    """Raises a usual error for what is no cell of this experiment."""
    identity(cell["told"]), cell["told"]["loss"], cell["name"]
    cell["accuracy_mean"] + cell["accuracy_std"] + cell["step_seconds"]
    cell["step_seconds"] / cell["baseline_step_seconds"]


def place_of(options: Options) -> pathlib.Path:
    """The JSON file."""
    return options.json or FOLDER / f"{pathlib.Path(options.data).stem}.json"


def fill(options: Options, data: Split) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(the cells that are asked for, losses that cannot be told with the reason).

    Cells are computed where the file lacks them; others stay in it. What cannot be is refused
    before anything is trained.
    """
    check_place(place_of(options))
    losses, found, reasons = asked(options), [], {}
    kept = Kept(place_of(options), "experiments.losses", check_cell)
    bench = Bench(options, data)
    for name, loss in losses.items():
        if reason := bench.refused(loss):
            reasons[name] = reason
    kept.note(untold=reasons)
    for name, loss in losses.items():
        if name in reasons:
            continue
        try:
            cell, there = kept.cell(bench.told_of(loss), partial(bench.measured, name, loss))
        except DataError as error:  # of the teacher's features, say
            reasons[name] = str(error)
            kept.note(untold=reasons)
            continue
        found.append(cell)
        note = f"in {kept.path} already" if there else f"{cell['test_seconds']:.0f} s"
        print(f"{name}: {accuracy(cell)}, {1e3 * cell['step_seconds']:.1f} ms a step, {note}",
              flush=True)
    return found, reasons


def differs(cell: Mapping[str, Any], baseline: Mapping[str, Any]) -> bool:
    """Whether two means are further apart than the larger of both deviations.

    Example:
      >>> differs({"accuracy_mean": 0.5, "accuracy_std": 0.1},
      ...         {"accuracy_mean": 0.65, "accuracy_std": 0.0})
      True
    """
    apart = abs(cell["accuracy_mean"] - baseline["accuracy_mean"])
    return apart > max(cell["accuracy_std"], baseline["accuracy_std"])


def table(found: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Titles and rows: of each loss accuracy, its distance from the baseline's, and times."""
    first, rows = found[0], []
    for cell in found:
        gain = 100 * (cell["accuracy_mean"] - first["accuracy_mean"])
        ratio = cell["step_seconds"] / cell["baseline_step_seconds"]
        rows.append((cell["name"], accuracy(cell), f"{gain:+.1f}",
                     "-" if cell is first else "yes" if differs(cell, first) else "no",
                     f"{1e3 * cell['step_seconds']:.2f}", f"{ratio:.2f}",
                     f"{cell['compile_seconds']:.1f}", cell["takes"]))
    return ("loss", "accuracy", f"over {BASELINE}", "differs", "step (ms)",
            f"times {BASELINE}'s", "compiled in (s)", "told"), rows


@own_dtypes()
def main(options: Options) -> None:
    """Fills in the cells, writes and prints the table and what could not be told."""
    found, reasons = fill(options, dd.data.load(options.data))
    first = found[0]
    title = f"Losses of {first['set']}, teacher {percent(first['teacher_accuracy'])} %"
    left_out = "".join(f"- {name}: {reason}\n" for name, reason in reasons.items())
    more = f"\nNot told by one live teacher:\n\n{left_out}" if reasons else ""
    students.write_table(place_of(options), title, *table(found), more)
    print_table(*table(found))
    print(more)


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
