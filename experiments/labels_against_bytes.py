"""Accuracy against the bytes of what students are told: labels, a live teacher, stores of views.

    python -m experiments.labels_against_bytes
    python -m experiments.labels_against_bytes --sets runs/dm runs/idc --ipc 10 --stores full,top5

To be run from the checkout's root. Sets are random real images and any that were saved. For every
set fresh networks learn from its own labels; and for every teacher from one soft label of each
image as it is, from the teacher itself on every view, and from every store of its words about the
views of a training, see `labels.store_settings`. All students of a set have the same steps and
augmentation. Labels that are logits of all classes are followed by KL at temperature 4, others, and
what has ":cross_entropy" behind it, by cross-entropy to probabilities.

Bytes are those of the numbers in the file: class numbers of 4 bytes where labels are hard, half
precision for one soft label, the payload of a store; of a live teacher those of its variables. They
are told beside the bytes of the set's images, as they are stored.

Every cell, all students of a set, a teacher and what they are told, is written as soon as it is
there; the same command again, or one with more sets, teachers or stores, computes only what is
missing, and a teacher or a store that was begun goes on; stores are files of a folder label_stores
beside --work. Leaves one JSON file, a table and a curve
for each data set in experiments/results/comparisons/labels_against_bytes: one for all its sets,
because they share teachers and are compared with one another.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import tyro

import dd_jax as dd
from dd_jax import evaluate
from dd_jax.backend import own_dtypes
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.stored_labels import asked_for, written
from dd_jax.cli.tables import print_table
from dd_jax.cli.taught import DEFAULT
from dd_jax.data import fingerprint
from dd_jax.distill.taught import members_of, taught
from dd_jax.distill.teachers import Teacher
from dd_jax.errors import ConfigError, DDJaxError
from dd_jax.evaluate.checks import check_testable
from dd_jax.evaluate.random_images import named_classes
from dd_jax.labels import Supervision, stored_targets
from dd_jax.labels.codecs import Full, bytes_of, coded
from dd_jax.labels.live import look
from dd_jax.labels.losses import parse
from dd_jax.report import curve
from dd_jax.report.result import check_place, percent
from dd_jax.store.artefacts import Artefact, ArtefactStore
from dd_jax.store.record import array_bytes
from dd_jax.types import Split
from experiments import students
from experiments.kept_cells import Kept, identity
from experiments.students import Common, NamedSet, accuracy

FOLDER = pathlib.Path(__file__).parent / "results" / "comparisons" / "labels_against_bytes"
OWN, SOFT, LIVE = "labels", "one soft label", "live teacher"
# KL at 4 and cross-entropy to the same labels: what part of a difference is the loss and not bytes.
STORES = ("full,full:cross_entropy,quant4,quant2,top5,top2,renormalised5,mr5,rank4,pruned10,"
          "top5+pruned10")


@dataclasses.dataclass(frozen=True)
class Options(Common):
    """One table.

    Attributes:
      ipc: comma-separated, of random real images; "" for none.
      sets: saved sets, or run folders.
      teachers: comma-separated networks.
      teacher_widths: as many, of those networks; batch normalisation wherever there can be one.
      stores: comma-separated, as of --label-store, each perhaps with :LOSS.
      steps: of each student; None: as many as the protocol "cpu" has.
      augmentation: of the students, whose views the teachers see.
    """

    ipc: str = "10,50"
    sets: tuple[pathlib.Path, ...] = ()
    teachers: str = "convnet,resnet18"
    teacher_widths: str = "64,16"
    stores: str = STORES
    steps: int | None = None
    augmentation: str = "dsa"


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A cell before it is computed.

    Attributes:
      made: the set.
      protocol: of its students.
      told: `OWN`, `SOFT`, `LIVE`, or a name of a store.
      artefact: of the teacher, None for the set's own labels.
    """

    made: NamedSet
    protocol: evaluate.Protocol
    told: str
    artefact: Artefact | None = None


def store_and_loss(told: str) -> tuple[str, str | None]:
    """(name of a store, its loss; None for the usual one), of "full:cross_entropy" or "full"."""
    name, _, loss = told.partition(":")
    return name, loss or None


def teachers_of(options: Options) -> dict[str, int]:
    """Network -> width.

    Raises:
      ConfigError: not as many widths as networks.
    """
    names = [name.strip() for name in options.teachers.split(",")]
    widths = [part.strip() for part in options.teacher_widths.split(",")]
    if len(widths) != len(names) or not all(part.isdecimal() for part in widths):
        raise ConfigError(f"teacher_widths is {options.teacher_widths!r} for the teachers {names}",
                          fix="pass --teachers convnet,resnet18 --teacher-widths 64,16")
    return dict(zip(names, map(int, widths)))


def rows_of(options: Options, data: Split, store: ArtefactStore) -> list[Row]:
    """All that are asked for; what cannot be is refused here, before anything is trained.

    Raises:
      ConfigError, DataError, SetFileError: as said.
    """
    stores = [name.strip() for name in options.stores.split(",") if name.strip()]
    widths, rows = teachers_of(options), []
    for made in students.sets_of(options.ipc, options.sets, data, store):
        protocol = students.student_protocol(made, width=options.width, steps=options.steps,
                                             augmentation=options.augmentation)
        check_testable(made.distilled, data.test, protocol)
        rows.append(Row(made, protocol, OWN))
        for told in stores:
            asked_for(*store_and_loss(told), made.distilled, [protocol], mode="running")
        for name, width in widths.items():
            artefact = students.teacher_of(name, data, made.distilled.normaliser, options,
                                           width=width)
            taught(made.distilled, [artefact.stand_in()], loss=parse(DEFAULT),
                   protocols=[protocol])
            rows += [Row(made, protocol, told, artefact)
                     for told in dict.fromkeys((SOFT, LIVE, *stores))]
    return rows


def told_of(row: Row, options: Options, data: Split) -> dict[str, Any]:
    """What a cell depends on: plain values."""
    told = {"set": row.made.sha256, "told": row.told, "seeds": options.seeds,
            "seed": options.seed, "protocol": row.protocol.plain(),
            "test_sha256": fingerprint(data.test)}
    if row.artefact is not None:
        told["teacher"] = row.artefact.address(data.train)
    return told


def check_cell(cell: Mapping[str, Any]) -> None:
    """Raises a usual error for what is no cell of this experiment."""
    identity(cell["told"]), cell["set"], cell["told"]["told"]
    cell["accuracy_mean"] + cell["accuracy_std"] + cell["bytes"] / cell["image_bytes"]


def own_labels_bytes(made: NamedSet) -> int:
    """Bytes of a set's own labels or of its label store; hard ones are class numbers of 4."""
    if made.distilled.label_store is not None:
        return made.distilled.cost_bytes.label_store
    hard = made.distilled.label_kind in ("classes", "one_hot")
    if hard and named_classes(made.distilled) is not None:
        return 4 * made.images
    return array_bytes([made.distilled.synthetic.labels])


def soft_labels(made: NamedSet, teacher: Teacher) -> tuple[Supervision, int]:
    """(one soft label of each image as it is, in half precision; bytes)."""
    images = made.distilled.trainable().images
    logits = jax.jit(partial(look, teacher.network))(teacher.variables, images)
    codec = Full(made.distilled.spec.num_classes)
    kept = codec.decode(coded(np.asarray(logits), codec))
    return stored_targets(kept, loss=parse(DEFAULT)), bytes_of(codec, made.images)


def shown_to(row: Row, teacher: Teacher | None, folder: pathlib.Path) -> tuple[Any, int, str]:
    """(what students are told as `evaluate` takes it, its bytes, the loss) of a row."""
    distilled = row.made.distilled
    if teacher is None:
        return None, own_labels_bytes(row.made), "auto"
    if row.told == SOFT:
        return *soft_labels(row.made, teacher), DEFAULT
    if row.told == LIVE:
        supervision = taught(distilled, [teacher], loss=parse(DEFAULT), protocols=[row.protocol])
        return supervision, array_bytes(jax.tree.leaves(teacher.variables)), DEFAULT
    name, loss = store_and_loss(row.told)
    stores = asked_for(name, loss, distilled, [row.protocol], mode="running")
    file = folder / f"{row.made.sha256[:12]}.safetensors"
    (replay,), (note,) = written(stores, file, distilled, members_of([teacher]), [row.protocol])
    heat = dict(getattr(stores.loss, "options", ())).get("temperature")
    return replay, note["bytes"], stores.loss.name + (f"@{heat:g}" if heat else "")


def measured(row: Row, options: Options, data: Split, store: ArtefactStore) -> dict[str, Any]:
    """The figures of a cell."""
    made, teacher, more = row.made, None, {}
    if row.artefact is not None:
        teacher = store.get(row.artefact, data.train)
        more = students.about(row.artefact, teacher)
    supervision, size, loss = shown_to(row, teacher, options.work.with_name("label_stores"))
    result = evaluate(made.distilled, data.test, protocol=row.protocol, key=options.seed,
                      seeds=options.seeds, supervision=supervision)
    cost = made.distilled.cost_bytes
    return {"set": made.name, "images": made.images, "loss": loss, "bytes": size,
            "image_bytes": cost.images + cost.parameters, **more, **students.figures_of(result),
            "test_steps": row.protocol.steps(made.images)}


def place_of(options: Options) -> pathlib.Path:
    """The JSON file."""
    return options.json or FOLDER / f"{pathlib.Path(options.data).stem}.json"


def fill(options: Options, data: Split) -> list[dict[str, Any]]:
    """The cells that are asked for, computed where the file lacks them; others stay in it.

    What cannot be is refused before anything is trained.
    """
    check_place(place_of(options))
    kept = Kept(place_of(options), "experiments.labels_against_bytes", check_cell)
    store, found = ArtefactStore(options.work), []
    for row in rows_of(options, data, store):
        cell, there = kept.cell(told_of(row, options, data),
                                partial(measured, row, options, data, store))
        found.append(cell)
        note = f"in {kept.path} already" if there else f"{cell['test_seconds']:.0f} s"
        print(f"{cell['set']}, {cell.get('teacher', 'no teacher')}, {row.told}: "
              f"{accuracy(cell)}, {cell['bytes']:,} bytes, {note}", flush=True)
    return found


def table(found: Sequence[Mapping[str, Any]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Titles and rows, one for each cell."""
    rows = [(cell["set"], cell.get("teacher", "-"), percent(cell.get("teacher_accuracy")),
             cell["told"]["told"], cell["loss"], accuracy(cell), f"{cell['bytes']:,}",
             f"{cell['bytes'] / cell['image_bytes']:.3g}") for cell in found]
    return ("set", "teacher", "its accuracy", "told", "loss", "accuracy", "bytes",
            "of the images' bytes"), rows


def series(found: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Of each set and teacher: bytes over those of the images, and accuracy in percent.

    Its own labels begin every line of a set.
    """
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell in found:
        if "teacher" in cell:
            lines.setdefault((cell["set"], cell["teacher"]), [])
    for cell in found:
        point = cell["bytes"] / cell["image_bytes"], 100 * cell["accuracy_mean"]
        for (name, teacher), points in lines.items():
            if name == cell["set"] and cell.get("teacher", teacher) == teacher:
                points.append(point)
    return {f"{name}, {teacher}": tuple(map(list, zip(*sorted(points))))
            for (name, teacher), points in lines.items()}


@own_dtypes()
def main(options: Options) -> None:
    """Fills in the cells, draws the curve, writes and prints the table."""
    found, path = fill(options, dd.data.load(options.data)), place_of(options)
    students.write_table(path, "Accuracy against bytes of labels", *table(found))
    curve(path.with_suffix(".png"), series(found), log=True, ylabel="test accuracy, %",
          xlabel="bytes of what students are told, over those of the images")
    print_table(*table(found))


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
