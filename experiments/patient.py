"""A patient teacher's students: accuracy against the length of their training.

    python -m experiments.patient
    python -m experiments.patient --sets runs/dm --epochs 100 --doublings 6

To be run from the checkout's root. Students of each set are trained by the protocol of
`evaluate.patient`, with the same strong crop, mirroring and mixup for them and for their teacher,
by KL to it (or what --supervision says); and beside that by the set's own labels, mixed as the
images are. Each length is a training of its own, whose rate rises and falls to 0 over it; lengths
are doubled, and steps with them.

Every cell, all students of a length and what they are told, is written as soon as it is there; the
same command again, or one with more doublings, computes only what is missing. Leaves a JSON file, a
table and a curve in experiments/results/comparisons/patient.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import tyro

import dd_jax as dd
from dd_jax import evaluate
from dd_jax.backend import own_dtypes
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.tables import print_table
from dd_jax.data import fingerprint
from dd_jax.distill.taught import taught
from dd_jax.errors import DDJaxError, require_whole
from dd_jax.evaluate.checks import check_testable
from dd_jax.evaluate.patient import PATIENCE, patient
from dd_jax.labels.losses import parse
from dd_jax.methods.frame.settings import default_depth
from dd_jax.report import curve
from dd_jax.report.result import check_place, percent
from dd_jax.store.artefacts import Artefact, ArtefactStore
from dd_jax.types import Split
from experiments import students
from experiments.kept_cells import Kept, identity
from experiments.students import Common, NamedSet, accuracy

FOLDER = pathlib.Path(__file__).parent / "results" / "comparisons" / "patient"
TOLD = ("teacher", "labels")


@dataclasses.dataclass(frozen=True)
class Options(Common):
    """One curve.

    Attributes:
      ipc: comma-separated, of random real images; "" for none.
      sets: saved sets, or run folders.
      patience: a name in `evaluate.patient.PATIENCE`.
      supervision: the loss against the teacher; by default that of the patience.
      epochs: of the shortest training.
      doublings: how often they are doubled.
      norm: of the students.
      teacher: a network; teacher_width: of it.
    """

    ipc: str = "10"
    sets: tuple[pathlib.Path, ...] = ()
    patience: str = "small"
    supervision: str | None = None
    epochs: int = 125
    doublings: int = 6
    norm: str = "batch"
    teacher: str = "convnet"
    teacher_width: int = 64

    def __post_init__(self):
        super().__post_init__()
        require_whole("epochs", self.epochs, example=125)
        require_whole("doublings", self.doublings, least=0, example=6)

    @property
    def loss(self) -> str:
        """Against the teacher."""
        return self.supervision or PATIENCE[self.patience].supervision

    @property
    def lengths(self) -> list[int]:
        """Epochs of all trainings."""
        return [self.epochs * 2**i for i in range(self.doublings + 1)]


class Row(NamedTuple):
    """A cell before it is computed: a set, its students' protocol, what they are told."""

    made: NamedSet
    protocol: evaluate.Protocol
    told: str
    artefact: Artefact


def protocol_of(made: NamedSet, options: Options, epochs: int) -> evaluate.Protocol:
    """The patient protocol at a length.

    Raises:
      ConfigError: an unknown patience, or a value that cannot be.
    """
    spec = made.distilled.spec
    return patient(options.patience, data=spec.name, epochs=epochs, width=options.width,
                   depth=default_depth(spec), norm=options.norm)


def rows_of(options: Options, data: Split, store: ArtefactStore) -> list[Row]:
    """All that are asked for; what cannot be is refused here, before anything is trained.

    Raises:
      ConfigError, DataError, SetFileError: as said.
    """
    patient(options.patience)
    loss, rows = parse(options.loss), []
    for made in students.sets_of(options.ipc, options.sets, data, store):
        artefact = students.teacher_of(options.teacher, data, made.distilled.normaliser, options,
                                       width=options.teacher_width)
        for epochs in options.lengths:
            protocol = protocol_of(made, options, epochs)
            check_testable(made.distilled, data.test, protocol)
            taught(made.distilled, [artefact.stand_in()], loss=loss, protocols=[protocol])
            rows += [Row(made, protocol, told, artefact) for told in TOLD]
    return rows


def told_of(row: Row, options: Options, data: Split) -> dict[str, Any]:
    """What a cell depends on: plain values."""
    told = {"set": row.made.sha256, "told": row.told, "seeds": options.seeds,
            "seed": options.seed, "protocol": row.protocol.plain(),
            "test_sha256": fingerprint(data.test)}
    if row.told == "teacher":
        told |= {"teacher": row.artefact.address(data.train), "loss": options.loss}
    return told


def check_cell(cell: Mapping[str, Any]) -> None:
    """Raises a usual error for what is no cell of this experiment."""
    identity(cell["told"]), cell["set"], cell["told"]["told"]
    cell["accuracy_mean"] + cell["accuracy_std"] + cell["epochs"] + cell["test_steps"]


def measured(row: Row, options: Options, data: Split, store: ArtefactStore) -> dict[str, Any]:
    """The figures of a cell."""
    made, supervision, more = row.made, None, {}
    if row.told == "teacher":
        master = store.get(row.artefact, data.train)
        supervision = taught(made.distilled, [master], loss=parse(options.loss),
                             protocols=[row.protocol])
        more = students.about(row.artefact, master)
    result = evaluate(made.distilled, data.test, protocol=row.protocol, key=options.seed,
                      seeds=options.seeds, supervision=supervision)
    return {"set": made.name, "epochs": row.protocol.plan.epochs, **more,
            **students.figures_of(result), "test_steps": row.protocol.steps(made.images)}


def place_of(options: Options) -> pathlib.Path:
    """The JSON file."""
    return options.json or FOLDER / f"{pathlib.Path(options.data).stem}.json"


def fill(options: Options, data: Split) -> list[dict[str, Any]]:
    """The cells that are asked for, computed where the file lacks them; others stay in it.

    What cannot be is refused before anything is trained.
    """
    check_place(place_of(options))
    kept = Kept(place_of(options), "experiments.patient", check_cell)
    store, found = ArtefactStore(options.work), []
    for row in rows_of(options, data, store):
        cell, there = kept.cell(told_of(row, options, data),
                                partial(measured, row, options, data, store))
        found.append(cell)
        note = f"in {kept.path} already" if there else f"{cell['test_seconds']:.0f} s"
        print(f"{cell['set']}, {cell['epochs']} epochs, {row.told}: {accuracy(cell)}, {note}",
              flush=True)
    return found


def table(found: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Titles and rows: of each set and length the accuracy by the teacher, and by labels."""
    rows = []
    for by_teacher, labels in zip(found[::2], found[1::2]):
        gain = 100 * (by_teacher["accuracy_mean"] - labels["accuracy_mean"])
        rows.append((by_teacher["set"], str(by_teacher["epochs"]), f"{by_teacher['test_steps']:,}",
                     accuracy(by_teacher), accuracy(labels), f"{gain:+.1f}",
                     f"{by_teacher['test_seconds']:.0f}",
                     percent(by_teacher["teacher_accuracy"])))
    return ("set", "epochs", "steps", "teacher", "labels", "gain", "all students (s)",
            "the teacher's own"), rows


def series(found: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Of each set and what students are told: epochs, and accuracy in percent."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for cell in found:
        epochs, accuracies = lines.setdefault(f"{cell['set']}, {cell['told']['told']}", ([], []))
        epochs.append(cell["epochs"])
        accuracies.append(100 * cell["accuracy_mean"])
    return lines


@own_dtypes()
def main(options: Options) -> None:
    """Fills in the cells, draws the curve, writes and prints the table."""
    found, path = fill(options, dd.data.load(options.data)), place_of(options)
    title = f"Students of a patient teacher, {options.loss}"
    students.write_table(path, title, *table(found))
    curve(path.with_suffix(".png"), series(found), log=True, xlabel="epochs",
          ylabel="test accuracy, %")
    print_table(*table(found))


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
