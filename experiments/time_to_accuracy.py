"""Accuracy against wall time: subsets drawn anew in each round, a coreset chosen once, all images.

    python -m experiments.time_to_accuracy
    python -m experiments.time_to_accuracy --coreset el2n --shares 0.1 --rounds 60 --seeds 5

To be run from the checkout's root, on a machine that does nothing else. One narrow network for each
seed is trained for so many rounds, of the whole set ("full"), of a random share of it that is
another in each round (RS2, with and without replacement), or of a coreset of that share. Every rate
falls to 0 by a cosine over the steps of its own training. The clock stands still while a network is
tested. What a coreset costs to choose, the network that looks at the images included, counts, and
so does the compilation of each.

Every cell, a training with its seed, is written as soon as it is there; the same command again, or
one with more seeds or shares, computes only what is missing. Leaves a JSON file and a curve in
experiments/results/comparisons/time_to_accuracy. RS2 needs all images while it trains: it is no
coreset and no distilled set, but what these have to beat at the same time.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import tyro

import dd_jax as dd
from dd_jax import methods, nets
from dd_jax.backend import own_dtypes
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.tables import print_table
from dd_jax.data import fingerprint, normalisers
from dd_jax.distill.plan import Plan
from dd_jax.errors import ConfigError, DataError, DDJaxError, require_whole
from dd_jax.methods.families.selection import Selection
from dd_jax.methods.frame.settings import default_depth
from dd_jax.report import curve
from dd_jax.report.result import percent
from dd_jax.store.atomic import write_atomically
from dd_jax.train import rs2_size
from dd_jax.types import Split
from experiments.kept_cells import Kept, identity
from experiments.timed_training import Arm, Coreset, Trainer, Training

FOLDER = pathlib.Path(__file__).parent / "results" / "comparisons" / "time_to_accuracy"


@dataclasses.dataclass(frozen=True)
class Options:
    """One comparison.

    Attributes:
      data: as on the command line.
      shares: comma-separated; of the images, for RS2 and coresets.
      coreset: a method that selects.
      changes: JSON of settings of it that differ from its protocol "cpu".
      seeds: networks of each training; seed: of the first.
      rounds: of each training.
      points: how often accuracy is measured on the way.
      width, depth: of the ConvNet; depth by default by the image size.
      batch_size, rate, decay: of SGD with Nesterov's momentum of 0.9.
      target: accuracy whose time is told; by default 0.98 of the last one on all images.
      json: where cells are kept, and looked for; the curve lies beside it.
      work: folder of the chosen rows.
    """

    data: str = "fashion_mnist"
    shares: str = "0.1,0.3"
    coreset: str = "moderate"
    changes: str = "{}"
    seeds: int = 3
    seed: int = 0
    rounds: int = 30
    points: int = 10
    width: int = 32
    depth: int | None = None
    batch_size: int = 128
    rate: float = 0.1
    decay: float = 5e-4
    target: float | None = None
    json: pathlib.Path | None = None
    work: pathlib.Path = pathlib.Path("runs/time_to_accuracy")


def arms(options: Options, size: int) -> list[Arm]:
    """All ways to train, in the order of the curve.

    Raises:
      ConfigError: a number that cannot be.
    """
    for name in ("seeds", "rounds", "points", "batch_size", "width"):
        require_whole(name, getattr(options, name), example=getattr(Options, name))
    try:
        shares = [float(share) for share in options.shares.split(",")]
    except ValueError:
        raise ConfigError(f"shares is {options.shares!r}, expected numbers",
                          fix="pass --shares 0.1,0.3") from None
    for share in shares:
        rs2_size(size, share)
    return [Arm("full"), *(Arm(name, share) for share in dict.fromkeys(shares)
                           for name in ("rs2_with", "rs2_without", "coreset"))]


def changes_of(options: Options) -> dict[str, Any]:
    """Settings of the coreset's method that differ.

    Raises:
      ConfigError: no JSON object.
    """
    try:
        return dict(json.loads(options.changes))
    except (ValueError, TypeError):
        raise ConfigError(f"changes is {options.changes!r}, expected a JSON object",
                          fix="""pass --changes '{"network_epochs": 5}'""") from None


def selection(options: Options, data: Split, share: float) -> Plan:
    """The plan of a coreset.

    Raises:
      ConfigError: a method that makes its images, or settings that cannot be.
    """
    if not issubclass(methods.get(options.coreset).settings, Selection):
        raise ConfigError(f"{options.coreset} does not choose real images",
                          fix="pass --coreset moderate, or another selection")
    return methods.plan(options.coreset, data.train, protocol="cpu", share=share,
                        **changes_of(options))


def chosen(options: Options, data: Split, share: float, told: str) -> Coreset:
    """A coreset, chosen once and kept in a file; `told` is what it depends on, as text.

    Raises:
      DataError: the file is damaged.
    """
    path = options.work / f"{options.coreset}_{share:g}.npz"
    try:
        with np.load(path) as kept:
            if str(kept["told"]) == told:
                return Coreset(kept["rows"], kept["weights"], float(kept["seconds"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} holds no coreset", fix="delete it, or name another --work "
                        "folder") from error
    plan = selection(options, data, share)
    with tempfile.TemporaryDirectory() as empty:  # what was made before would cost nothing
        start = time.perf_counter()
        found = dd.distill(plan, data.train, artefacts=empty)
        seconds = time.perf_counter() - start
    rows, weights = np.asarray(found.recipe["rows"], np.int32), found.synthetic.weights
    weights = np.ones(len(rows), np.float32) if weights is None else np.asarray(weights)
    write_atomically(path, lambda file: np.savez(
        file, rows=rows, weights=weights, seconds=seconds, told=told))
    return Coreset(rows, weights, seconds)


def check_cell(cell: Mapping[str, Any]) -> None:
    """Raises a usual error for what is no cell of this experiment."""
    identity(cell["told"]), seconds_of(cell), cell["accuracies"][-1] + cell["steps"]


def told_of(arm: Arm, options: Options, seed: int, sha256: str) -> dict[str, Any]:
    """What a cell depends on: plain values."""
    same = ("rounds", "points", "width", "depth", "batch_size", "rate", "decay")
    coreset = [options.coreset, changes_of(options)] if arm.name == "coreset" else None
    return {"arm": arm.name, "share": arm.share, "seed": seed, "coreset": coreset,
            "data_sha256": sha256, **{name: getattr(options, name) for name in same}}


def seconds_of(cell: Mapping[str, Any]) -> list[float]:
    """Wall time at each point: of the choice, of the compilation, and of the training until it.

    Example:
      >>> seconds_of({"selection_seconds": 3.0, "compile_seconds": 1.0, "seconds": [2.0, 4.0]})
      [6.0, 8.0]
    """
    before = cell["selection_seconds"] + cell["compile_seconds"]
    return [before + spent for spent in cell["seconds"]]


def place_of(options: Options) -> pathlib.Path:
    """The JSON file."""
    return options.json or FOLDER / f"{pathlib.Path(options.data).stem}.json"


def trainer_of(arm: Arm, options: Options, data: Split, sha256: str) -> tuple[Trainer, float]:
    """(the compiled training of an arm, the seconds in which its coreset was chosen)."""
    spec, size = data.train.spec, len(data.train.labels)
    network = nets.convnet(spec, width=options.width, depth=default_depth(spec, options.depth))
    by = Training(network, options.rounds, options.points, options.batch_size, options.rate,
                  options.decay)
    coreset = Coreset(np.arange(size, dtype=np.int32), np.ones(size, np.float32), 0.0)
    if arm.name == "coreset":
        told = json.dumps([options.coreset, changes_of(options), arm.share, sha256])
        coreset = chosen(options, data, arm.share, told)
    normaliser = normalisers("published", data.train)
    return Trainer(by, arm, data, normaliser, coreset), coreset.seconds


def cells_of(arm: Arm, options: Options, data: Split, sha256: str, kept: Kept
             ) -> list[dict[str, Any]]:
    """The cells of an arm, one for each seed; what the file lacks is computed and written."""
    trainer = cache(lambda: trainer_of(arm, options, data, sha256))

    def measured(seed: int) -> dict[str, Any]:
        by, chosen_in = trainer()
        return {**by.measured(seed), "steps": by.steps, "selection_seconds": round(chosen_in, 3),
                "compile_seconds": round(by.seconds, 3)}

    found = []
    for seed in range(options.seed, options.seed + options.seeds):
        cell, there = kept.cell(told_of(arm, options, seed, sha256), partial(measured, seed))
        note = f"in {kept.path} already" if there else f"{cell['seconds'][-1]:.0f} s"
        found.append(cell)
        print(f"{arm.label}, seed {seed}: {percent(cell['accuracies'][-1])}, {note}", flush=True)
    return found


def fill(options: Options, data: Split) -> dict[Arm, list[dict[str, Any]]]:
    """The cells of each arm, computed where the file lacks them; others stay in it.

    What cannot be is refused before anything is trained.
    """
    asked = arms(options, len(data.train.labels))
    for arm in asked:
        if arm.name == "coreset":
            selection(options, data, arm.share)
    kept = Kept(place_of(options), "experiments.time_to_accuracy", check_cell)
    sha256 = fingerprint(data.train) + fingerprint(data.test)
    return {arm: cells_of(arm, options, data, sha256, kept) for arm in asked}


def means(cells: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, accuracies) [points], means over seeds."""
    return (np.mean([seconds_of(cell) for cell in cells], axis=0),
            np.mean([cell["accuracies"] for cell in cells], axis=0))


def table(found: Mapping[Arm, list[Mapping[str, Any]]], target: float | None = None):
    """Titles and rows: the last accuracy, what it took, and when the mean reached the target."""
    if target is None:
        target = 0.98 * means(found[Arm("full")])[1][-1]
    rows = []
    for arm, cells in found.items():
        last = [cell["accuracies"][-1] for cell in cells]
        seconds, accuracies = means(cells)
        there = seconds[accuracies >= target]
        rows.append((arm.label, str(cells[0]["steps"]), percent(np.mean(last), np.std(last)),
                     f"{cells[0]['selection_seconds']:.1f}", f"{seconds[-1]:.1f}",
                     f"{there[0]:.1f}" if len(there) else "-"))
    return ("trained on", "steps", "accuracy", "chosen in (s)", "in all (s)",
            f"{percent(target)} after (s)"), rows


@own_dtypes()
def main(options: Options) -> None:
    """Fills in the cells, draws the curve and prints the table."""
    found = fill(options, dd.data.load(options.data))
    path = place_of(options)
    series = {arm.label: means(cells) for arm, cells in found.items()}
    curve(path.with_suffix(".png"), {name: (x, 100 * y) for name, (x, y) in series.items()},
          xlabel="wall time (s), choice and compilation included", ylabel="test accuracy, %")
    print_table(*table(found, options.target))


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
