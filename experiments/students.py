"""What experiments on what students are told have in common: options, sets, tests and teachers."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import dd_jax as dd
from dd_jax import methods
from dd_jax.data import Normaliser
from dd_jax.data.conventions import DIGITS, known_as
from dd_jax.distill.plan import Plan
from dd_jax.distill.teachers import Teacher, teacher
from dd_jax.errors import ConfigError, require_whole
from dd_jax.evaluate import Protocol, protocol
from dd_jax.methods.families.budgets import evaluation_steps
from dd_jax.methods.frame.settings import default_depth
from dd_jax.report.result import markdown, percent
from dd_jax.store import DistilledSet
from dd_jax.store.artefacts import Artefact, ArtefactStore
from dd_jax.store.atomic import write_atomically
from dd_jax.store.container import content_hash
from dd_jax.types import DataSpec, Split


@dataclasses.dataclass(frozen=True)
class Common:
    """Options of every experiment on what students are told.

    Attributes:
      data: as on the command line.
      seeds: students of each cell; seed: of the first, and of the teachers.
      width: of the students, ConvNets with as many blocks as the image size asks for.
      teacher_epochs: on all real images.
      json: where cells are kept, and looked for; the table and the curve lie beside it.
      work: folder of the teachers and of chosen rows.
    """

    data: str = "fashion_mnist"
    seeds: int = 5
    seed: int = 0
    width: int = 32
    teacher_epochs: int = 20
    json: pathlib.Path | None = None
    work: pathlib.Path = pathlib.Path("runs/artefacts")

    def __post_init__(self):
        for name in ("seeds", "width", "teacher_epochs"):
            require_whole(name, getattr(self, name), example=getattr(Common, name))


class NamedSet(NamedTuple):
    """A set, its name in tables, and the SHA-256 of what networks train on."""

    name: str
    distilled: DistilledSet
    sha256: str

    @property
    def images(self) -> int:
        """How many it shows."""
        return len(self.distilled.synthetic.images)


def named_set(name: str, distilled: DistilledSet) -> NamedSet:
    """A set by the content of what networks train on."""
    synthetic = distilled.trainable()
    arrays = {part: np.asarray(array) for part, array in synthetic._asdict().items()
              if array is not None}
    return NamedSet(name, distilled, content_hash(arrays))


def random_plan(data: Split, ipc: int) -> Plan:
    """The plan of random real images, as the method `random` chooses them.

    Raises:
      ConfigError, DataError: so many images of each class that there cannot be.
    """
    return methods.plan("random", data.train, protocol="cpu", ipc=ipc)


def random_set(data: Split, ipc: int, store: ArtefactStore) -> NamedSet:
    """Random real images, the same ones in every experiment.

    Raises:
      ConfigError, DataError: as `random_plan`.
    """
    found = dd.distill(random_plan(data, ipc), data.train, artefacts=store, show_progress=False)
    return named_set(f"random, {ipc} per class", found)


def saved_set(path: pathlib.Path) -> NamedSet:
    """A saved set, or that of a run folder.

    Raises:
      SetFileError: there is none, or it is damaged.
    """
    file = path / "set.safetensors" if path.is_dir() else path
    distilled = dd.load(file)
    method = distilled.recipe.get("method") or file.stem
    return named_set(f"{method}, {distilled.ipc:g} per class", distilled)


def sets_of(
    ipc: str, paths: Sequence[pathlib.Path], data: Split, store: ArtefactStore
) -> list[NamedSet]:
    """Sets of random real images, and saved ones, in the order of a table.

    Args:
      ipc: comma-separated, of the random ones; "" for none.
      paths: of saved sets, or of run folders.
      data: the real set.
      store: of chosen rows.

    Raises:
      ConfigError, DataError, SetFileError: no set, the same one twice, or one that cannot be.
    """
    numbers = whole_numbers("ipc", ipc)
    for number in numbers:
        random_plan(data, number)
    saved = [saved_set(path) for path in paths]
    found: dict[str, NamedSet] = {}
    for made in [*(random_set(data, number, store) for number in numbers), *saved]:
        if made.sha256 in (other.sha256 for other in found.values()):
            raise ConfigError(f"the set {made.name} is given twice", fix="name it once")
        name = f"{made.name} {made.sha256[:6]}" if made.name in found else made.name
        found[name] = made._replace(name=name)
    if not found:
        raise ConfigError("there is no set", fix="pass --ipc 10, or --sets FOLDER")
    return list(found.values())


def views_for(name: str, spec: DataSpec) -> str:
    """The name of an augmentation, without a flip where the images are digits."""
    return dd.augment.table.WITHOUT_FLIP.get(name, name) if known_as(spec.name) in DIGITS else name


def student_protocol(
    made: NamedSet, *, width: int, steps: int | None, augmentation: str
) -> Protocol:
    """DC's test of a set by ConvNets, for a number of steps whatever the set shows.

    Args:
      made: the set.
      width: of the networks.
      steps: of the optimizer; None: as many as the protocol "cpu" has for so many images.
      augmentation: a name in `augment.by_name`.

    Raises:
      ConfigError: a name or a number that cannot be.
    """
    spec = made.distilled.spec
    steps = evaluation_steps(made.distilled.ipc) if steps is None else steps
    require_whole("steps", steps, example=1000)
    short = protocol("dc", width=width, depth=default_depth(spec), epochs=1,
                     augmentation=views_for(augmentation, spec))
    return short.varied(epochs=-(-steps // short.steps(made.images)))


def teacher_of(
    network: str, data: Split, normaliser: Normaliser, options: Common, *, width: int | None
) -> Artefact:
    """A teacher trained on all real images, whose images go through a set's normaliser.

    Raises:
      ConfigError: a network or a width that cannot be.
    """
    depth = default_depth(data.train.spec) if network == "convnet" else None  # as the students'
    return teacher(network, data, width=width, depth=depth, normaliser=normaliser,
                   seed=options.seed, epochs=options.teacher_epochs)


def whole_numbers(name: str, text: str) -> list[int]:
    """Numbers of a comma-separated option, each once.

    Raises:
      ConfigError: something else.

    Example:
      >>> whole_numbers("ipc", "10, 50,10")
      [10, 50]
    """
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, expected whole numbers",
                          fix="pass numbers such as 10,50") from None
    for number in found:
        require_whole(name, number, example=10)
    return list(dict.fromkeys(found))


def accuracy(cell: Mapping[str, Any]) -> str:
    """Mean and deviation in percent."""
    return percent(cell["accuracy_mean"], cell["accuracy_std"])


def about(artefact: Artefact, master: Teacher) -> dict[str, Any]:
    """What a cell tells of its teacher."""
    told = artefact.settings
    return {"teacher": master.name, "teacher_accuracy": master.accuracy,
            "teacher_options": dict(told["options"]), "teacher_training": dict(told["training"])}


def figures_of(result: dd.evaluate.Evaluation) -> dict[str, Any]:
    """What a cell tells of its students."""
    return {"accuracy_mean": result.mean, "accuracy_std": result.std,
            "accuracies": result.accuracies.tolist(), "test_seconds": round(result.seconds, 1)}


def write_table(
    path: pathlib.Path, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]],
    more: str = "",
) -> None:
    """The table as a Markdown file beside the JSON, whole or not at all."""
    text = f"# {title}\n\n{markdown(columns, rows)}{more}"
    write_atomically(path.with_suffix(".md"), lambda file: file.write(text.encode()))
