"""Real images that were chosen, with their labels alone and with a teacher of all images beside.

    python -m experiments.pruned_with_teacher
    python -m experiments.pruned_with_teacher --selectors random,el2n --shares 0.1 --seeds 5

To be run from the checkout's root. A teacher of the students' architecture is trained once on all
real images. For every selector and share, fresh networks are trained on the chosen images by hard
labels, and by (1 - a) of these and a of the teacher's softened probabilities, see
`labels.pruned`; a follows the share unless --alpha says it. Both trainings have the same steps
and views, and the teacher sees the views that the student does.

Every cell, all networks of a selector, a share and what they are told, is written as soon as it is
there; the same command again, or one with more selectors or shares, computes only what is missing.
Leaves a JSON file in experiments/results/comparisons/pruned_with_teacher.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import optax
import tyro

import dd_jax as dd
from dd_jax import augment, evaluate, methods
from dd_jax.backend import own_dtypes
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.tables import print_table
from dd_jax.data import fingerprint
from dd_jax.distill.needs import normaliser_of, teacher
from dd_jax.distill.plan import Plan, complete
from dd_jax.errors import ConfigError, DDJaxError, require_probability, require_whole
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.evaluate import test_accuracy as accuracy_on
from dd_jax.evaluate.protocol import Protocol
from dd_jax.labels.pruned import alpha_of, pruned_data
from dd_jax.methods.families.selection import Selection
from dd_jax.methods.frame.settings import default_depth
from dd_jax.report.result import percent
from dd_jax.select.dynamics import Recording
from dd_jax.store.artefacts import Artefact, ArtefactStore
from dd_jax.types import Network, PyTree, Split
from experiments.kept_cells import Kept, identity

FOLDER = pathlib.Path(__file__).parent / "results" / "comparisons" / "pruned_with_teacher"
TOLD = ("labels", "teacher")
_NORMALISER = "published"


@dataclasses.dataclass(frozen=True)
class Options:
    """One comparison.

    Attributes:
      data: as on the command line.
      selectors: comma-separated methods that choose real images.
      shares: comma-separated, of every class.
      changes: JSON of settings of the selectors that differ from their protocol "cpu"; a selector
        takes those that it has.
      alpha: the teacher's part; by default as `labels.pruned.alpha_of` says.
      temperature: of the probabilities.
      seeds: networks of each cell; seed: of the first.
      steps: of each training; None: as many as the protocol "cpu" has.
      augmentation: of the students and of the teacher.
      width: of the ConvNets.
      teacher_epochs, teacher_batch_size, teacher_rate, teacher_decay: of its SGD with Nesterov's
        momentum of 0.9, whose rate falls to 0 by a cosine.
      json: where cells are kept, and looked for.
      work: folder of the teacher and of the chosen rows.
    """

    data: str = "fashion_mnist"
    selectors: str = "random,herding,el2n,forgetting"
    shares: str = "0.01,0.1,0.3"
    changes: str = "{}"
    alpha: float | None = None
    temperature: float = 4.0
    seeds: int = 3
    seed: int = 0
    steps: int | None = 2000
    augmentation: str = "none"
    width: int = 32
    teacher_epochs: int = 20
    teacher_batch_size: int = 128
    teacher_rate: float = 0.1
    teacher_decay: float = 5e-4
    json: pathlib.Path | None = None
    work: pathlib.Path = pathlib.Path("runs/artefacts")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A selector, a share of every class, and what networks are told, a name in `TOLD`."""

    selector: str
    share: float
    told: str


def cells(options: Options) -> list[Cell]:
    """All that are asked for.

    Raises:
      ConfigError: a number that cannot be; a method that makes its images.
    """
    for name in ("seeds", "width", "teacher_epochs", "teacher_batch_size"):
        require_whole(name, getattr(options, name), example=getattr(Options, name))
    if options.alpha is not None:
        require_probability("alpha", options.alpha)
    try:
        shares = [float(share) for share in options.shares.split(",")]
    except ValueError:
        raise ConfigError(f"shares is {options.shares!r}, expected numbers",
                          fix="pass --shares 0.01,0.1,0.3") from None
    selectors = [name.strip() for name in options.selectors.split(",")]
    for name in selectors:
        if not issubclass(methods.get(name).settings, Selection):
            raise ConfigError(f"{name} does not choose real images",
                              fix="pass --selectors random,herding, or other selections")
    return [Cell(name, share, told) for name in dict.fromkeys(selectors)
            for share in dict.fromkeys(shares) for told in TOLD]


def settings_of(cell: Cell, options: Options) -> dict[str, Any]:
    """Settings of a cell's selector that differ from its protocol "cpu".

    Raises:
      ConfigError: no JSON object.
    """
    try:
        changes = dict(json.loads(options.changes))
    except (ValueError, TypeError):
        raise ConfigError(f"changes is {options.changes!r}, expected a JSON object",
                          fix="""pass --changes '{"network_epochs": 5}'""") from None
    own = {field.name for field in dataclasses.fields(methods.get(cell.selector).settings)}
    return {**{name: value for name, value in changes.items() if name in own},
            "share": cell.share, "augmentation": options.augmentation,
            "evaluation_width": options.width, "evaluation_steps": options.steps,
            "normaliser": _NORMALISER}


def plan_of(cell: Cell, options: Options, data: Split) -> Plan:
    """The plan of a cell's selection.

    Raises:
      ConfigError, DataError: settings or a share that cannot be.
    """
    return methods.plan(cell.selector, data.train, protocol="cpu", **settings_of(cell, options))


def alpha_in(cell: Cell, options: Options) -> float:
    """The teacher's part in a cell; 0 where there is none."""
    if cell.told == "labels":
        return 0.0
    return alpha_of(cell.share) if options.alpha is None else options.alpha


def told_of(cell: Cell, options: Options, data: Split, sha256: str) -> dict[str, Any]:
    """What a cell depends on: plain values, those of the teacher only where there is one."""
    told = {**dataclasses.asdict(cell), "settings": settings_of(cell, options),
            "seeds": options.seeds, "seed": options.seed, "data_sha256": sha256}
    if cell.told == "teacher":
        names = ("temperature", "teacher_epochs", "teacher_batch_size", "teacher_rate",
                 "teacher_decay")
        told |= {name: getattr(options, name) for name in names}
        told["alpha"] = alpha_in(cell, options)
    return told


def check_cell(cell: Mapping[str, Any]) -> None:
    """Raises a usual error for what is no cell of this experiment."""
    identity(cell["told"]), cell["told"]["share"] + cell["accuracy_mean"] + cell["accuracy_std"]


def teacher_of(network: Network, options: Options, data: Split) -> Artefact:
    """The teacher as an artefact: a network that was trained on all real images."""
    size = min(options.teacher_batch_size, len(data.train.labels))
    steps = options.teacher_epochs * -(-len(data.train.labels) // size)
    sgd = optax.chain(
        optax.add_decayed_weights(options.teacher_decay),
        optax.sgd(optax.cosine_decay_schedule(options.teacher_rate, steps), momentum=0.9,
                  nesterov=True))
    views = augment.by_name(options.augmentation, data.train.spec.shape)
    recording = Recording(network, sgd, size,
                          None if options.augmentation == "none" else views)

    def train(data, key, normaliser):
        return recording.train(data, normaliser, key, options.teacher_epochs)

    return teacher(
        network, train, normaliser=normaliser_of(_NORMALISER, data.train), seed=options.seed,
        settings=dict(epochs=options.teacher_epochs, batch_size=size, rate=options.teacher_rate,
                      decay=options.teacher_decay, augmentation=options.augmentation,
                      training="of all images"))


def protocol_of(recipe: dd.Recipe, data: Split) -> Protocol:
    """How students are tested: of one depth, whatever networks a selector looks through."""
    return recipe.evaluation.varied(depth=default_depth(data.train.spec))


class Taught:
    """The teacher, trained or found when it is first asked for."""

    def __init__(self, options: Options, data: Split, store: ArtefactStore):
        self.options, self.data, self.store = options, data, store
        self.network: Network | None = None

    def __call__(self, recipe: dd.Recipe) -> tuple[Network, PyTree, float]:
        """(its architecture, its variables, its accuracy on the test images)."""
        if self.network is None:
            protocol = protocol_of(recipe, self.data)
            self.network = build_network(protocol, self.data.train.spec)
            need = teacher_of(self.network, self.options, self.data)
            self.variables = self.store.get(need, self.data.train)
            self.accuracy = float(jax.jit(accuracy_on, static_argnums=0)(
                self.network, self.variables, self.data.test, recipe.normaliser))
        return self.network, self.variables, self.accuracy


def measured(cell: Cell, options: Options, data: Split, store: ArtefactStore,
             taught: Taught) -> dict[str, Any]:
    """The figures of a cell."""
    plan = plan_of(cell, options, data)
    found = dd.distill(plan, data.train, artefacts=store, show_progress=False)
    recipe, supervision, more = complete(plan, data.train, artefacts=store), None, {}
    protocol = protocol_of(recipe, data)
    if cell.told == "teacher":
        network, variables, accuracy = taught(recipe)
        supervision = pruned_data(network, variables, temperature=options.temperature,
                                  share=cell.share, alpha=options.alpha)
        more["teacher_accuracy"] = accuracy
    result = evaluate(found, data.test, protocol=protocol, key=options.seed,
                      seeds=options.seeds, supervision=supervision)
    return {**more, "accuracy_mean": result.mean, "accuracy_std": result.std,
            "accuracies": result.accuracies.tolist(), "images": len(found.synthetic.images),
            "test_steps": protocol.steps(len(found.synthetic.images)),
            "test_seconds": round(result.seconds, 1)}


def place_of(options: Options) -> pathlib.Path:
    """The JSON file."""
    return options.json or FOLDER / f"{pathlib.Path(options.data).stem}.json"


def fill(options: Options, data: Split) -> dict[Cell, dict[str, Any]]:
    """The cells that are asked for, computed where the file lacks them; others stay in it.

    What cannot be is refused before anything is trained.
    """
    asked, path = cells(options), place_of(options)
    for cell in asked:
        plan_of(cell, options, data)
    kept = Kept(path, "experiments.pruned_with_teacher", check_cell)
    sha256 = fingerprint(data.train) + fingerprint(data.test)
    store, found = ArtefactStore(options.work), {}
    taught = Taught(options, data, store)
    for cell in asked:
        found[cell], there = kept.cell(
            told_of(cell, options, data, sha256),
            partial(measured, cell, options, data, store, taught))
        note = f"in {path} already" if there else f"{found[cell]['test_seconds']:.0f} s"
        print(f"{cell.selector}, {100 * cell.share:g} %, {cell.told}: {accuracy(found[cell])}, "
              f"{note}", flush=True)
    return found


def accuracy(cell: Mapping[str, Any]) -> str:
    """Mean and deviation in percent."""
    return percent(cell["accuracy_mean"], cell["accuracy_std"])


def table(found: Mapping[Cell, Mapping[str, Any]]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Titles and rows: of each selector and share the accuracy with labels, and with a teacher."""
    rows = []
    for cell, labels in found.items():
        if cell.told == "labels":
            both = found[dataclasses.replace(cell, told="teacher")]
            gain = 100 * (both["accuracy_mean"] - labels["accuracy_mean"])
            rows.append((cell.selector, f"{100 * cell.share:g} %", str(labels["images"]),
                         accuracy(labels), accuracy(both), f"{gain:+.1f}",
                         f"{both['told']['alpha']:.2f}", percent(both["teacher_accuracy"])))
    return ("chosen by", "share", "images", "labels", "teacher too", "gain", "alpha",
            "teacher"), rows


@own_dtypes()
def main(options: Options) -> None:
    """Fills in the cells and prints the table."""
    print_table(*table(fill(options, dd.data.load(options.data))))


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
