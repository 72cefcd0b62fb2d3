"""A grid of a method's settings on a tenth of the budget, to tune a preset by.

    python -m experiments.tune dm --ipc 10 --scan learning_rate=1,3,10,30
    python -m experiments.tune mtt --ipc 10 --scan image_rate=100,300,1000 --scan inner_steps=20,40

To be run from the checkout's root. Every point of the grid is a run with `share` of the preset's
steps, and `test_share` of the steps of its test; scanned numbers of steps are those of the whole
budget.
For each it tells the loss at both ends, how far the images have moved, the accuracy of two
networks, and once for each test its ceiling: one network trained on all real images under the whole
test.

Images that hardly move ask for a higher rate, or for more steps; a ceiling below what the set
should reach asks for another test. The rate that is best for a tenth of the steps is too high for
all of them: of DSA's 40 and 400 steps at ten images per class it is 2 and 0.5. So a scan at a tenth
is to be followed by one or two points at `--share 1`, at that rate and at a quarter of it.

A point is written as soon as it is there; the same command again, or one with more points, computes
only what is missing. Leaves experiments/results/tuning.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import dd_jax as dd
from dd_jax import evaluate, methods
from dd_jax.cli.allocator import keep_memory
from dd_jax.cli.tables import print_table
from dd_jax.distill.plan import complete
from dd_jax.errors import ConfigError, DDJaxError, NonFiniteError
from dd_jax.evaluate.baselines import full_baseline
from dd_jax.report.result import device_name, git_commit, percent, write_result
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.versions import versions
from experiments.budgets import part, shortened, shortened_test
from experiments.cells import as_json
from experiments.kept_cells import read_cells
from experiments.table import RESULTS, TUNING

# What a point is the measurement of; points that agree in these are the same.
IDENTITY = ("settings", "protocol", "data", "share", "test_share", "networks", "seed")


@dataclasses.dataclass(frozen=True)
class Options:
    """A method and a grid.

    Attributes:
      method: by its name.
      scan: NAME=VALUE,VALUE,... of a setting; several make a grid.
      ipc, protocol, data, seed: as for a run.
      share: of the preset's steps.
      test_share: of its test's; the same by default.
      networks: tested at each point.
      full: also the ceiling of each test, made once and kept with the artefacts.
      artefacts: folder of what is made from the real data once.
      out: folder of the tables.
    """

    method: Annotated[str, tyro.conf.Positional]
    scan: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    ipc: float = 1
    protocol: str = "cpu"
    data: str = "fashion_mnist"
    seed: int = 0
    share: float = 0.1
    test_share: float | None = None
    networks: int = 2
    full: bool = True
    artefacts: pathlib.Path = pathlib.Path("runs/artefacts")
    out: pathlib.Path = RESULTS / TUNING


def scanned(words: Sequence[str]) -> list[dict[str, Any]]:
    """The points of a grid, the last name running fastest; one empty point without any.

    Values are JSON where they can be read as that, else text.

    Raises:
      ConfigError: words that are no scan, or a name twice.

    Example:
      >>> scanned(["rate=1,0.5", "start=real"])
      [{'rate': 1, 'start': 'real'}, {'rate': 0.5, 'start': 'real'}]
    """
    axes: dict[str, list[Any]] = {}
    for word in words:
        name, equals, values = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not values.strip() or name in axes:
            raise ConfigError(f"--scan got {word!r}, expected a new NAME=VALUE,VALUE,...",
                              fix="pass for example --scan learning_rate=1,3,10")
        axes[name] = [_value(text.strip()) for text in values.split(",")]
    return [dict(zip(axes, point)) for point in itertools.product(*axes.values())]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def moved(start: np.ndarray, end: np.ndarray) -> float:
    """How far images have moved, relative to their size at the start: the mean over images.

      mean_i ||x_i - x0_i|| / ||x0_i||

    Args:
      start, end: [M, H, W, C] in model space.

    Example:
      >>> moved(np.ones((2, 1, 1, 1)), np.array([1.0, 1.5]).reshape(2, 1, 1, 1))
      0.25
    """
    start, end = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (start, end))
    norms = np.maximum(np.linalg.norm(start, axis=1), 1e-12)
    return float(np.mean(np.linalg.norm(end - start, axis=1) / norms))


def ends(losses: Sequence[float]) -> tuple[float, float]:
    """The mean of the first and of the last twentieth of a run's losses, one at least each.

    Example:
      >>> ends([4.0, 3.0, 2.0])
      (4.0, 2.0)
    """
    count = max(1, len(losses) // 20)
    return float(np.mean(losses[:count])), float(np.mean(losses[-count:]))


def tested(distilled, recipe: dd.Recipe, data, options: Options) -> dict[str, Any]:
    """Accuracies of a few networks under a share of the recipe's test."""
    key = jax.random.key(options.seed + 1)
    share = options.share if options.test_share is None else options.test_share
    short = shortened_test(recipe.evaluation, share)
    if recipe.labels.kind == "representations":
        budget = evaluate.BUDGETS[options.protocol]
        budget = dataclasses.replace(budget, seeds=options.networks, tune_steps=0,
                                     probe_steps=part(budget.probe_steps, share))
        found = evaluate.evaluate_transfer(
            distilled.trainable(), data, normaliser=recipe.normaliser, protocol=short, key=key,
            budget=budget).probe
    else:
        found = evaluate.evaluate_progressive(distilled, data.test, protocol=short, key=key,
                                              seeds=options.networks)
    return dict(accuracy_mean=found.mean, accuracy_std=found.std,
                accuracies=found.accuracies.tolist(), test_seconds=round(found.seconds, 1),
                test_steps=short.steps(distilled.synthetic.images.shape[0]))


def distilled_point(recipe: dd.Recipe, data, seed: int) -> tuple[Any, dict[str, Any]]:
    """A short run: its set, and what is told of the run.

    Raises:
      NonFiniteError: a step was not finite.
    """
    d = dd.distillation(recipe)
    key, losses = jax.random.key(seed), []

    def started(key, train):
        return d.decode(d.init(key, train)).images

    start = np.asarray(jax.jit(started)(key, data.train))
    begun = time.perf_counter()
    distilled = dd.distill(recipe, data.train, key=seed, log_every=1,
                           callbacks=[lambda step, metrics: losses.append(metrics["loss"])])
    seconds = time.perf_counter() - begun
    first, last = ends(losses) if losses else (None, None)
    end = jnp.asarray(distilled.trainable().images)
    return distilled, dict(loss_first=first, loss_last=last, moved=moved(start, end),
                           steps=len(losses), seconds=round(seconds, 1))


def ceiling(recipe: dd.Recipe, data, options: Options, store: ArtefactStore) -> float | None:
    """Accuracy of all real images under the recipe's whole test, from the store once it is made."""
    if recipe.labels.kind == "representations":
        return None
    # The seed is that of a run's own baseline, so that both share it.
    made = full_baseline(data, protocol=recipe.evaluation, normaliser=recipe.normaliser,
                         labels=recipe.labels, seed=options.seed + 2)
    return store.get(made, data.train).mean


def identity(point: Mapping[str, Any]) -> str:
    """The fields of `IDENTITY` as text."""
    return json.dumps({name: point[name] for name in IDENTITY}, sort_keys=True)


def measured(point: dict[str, Any], recipe: dd.Recipe, data, options: Options) -> dict[str, Any]:
    """One point with its figures; where a step was not finite, with that in their place."""
    try:
        distilled, run = distilled_point(recipe, data, options.seed)
    except NonFiniteError as error:
        return {**point, "error": error.message}
    return {**point, **run, **tested(distilled, recipe, data, options)}


def fill(options: Options) -> list[dict[str, Any]]:
    """The points of the grid in its order, computed where the file lacks them.

    Points of other grids stay in the file.

    Raises:
      ConfigError: settings that cannot be; before anything is computed.
    """
    method, data, wanted = methods.get(options.method), dd.data.load(options.data), []
    ipc = int(options.ipc) if options.ipc == int(options.ipc) else options.ipc
    for changes in scanned(options.scan):
        whole = methods.preset(method, options.protocol, ipc, **changes)
        settings = shortened(whole, options.share)
        point = {"changes": changes, "settings": as_json(dataclasses.asdict(settings)),
                 "protocol": options.protocol, "data": options.data, "share": options.share,
                 "test_share": options.test_share,
                 "networks": options.networks, "seed": options.seed}
        wanted.append((point, methods.plan_with(method, settings, data)))
    path = options.out / f"{method.name}_ipc{ipc}.json"
    store = ArtefactStore(options.artefacts)
    known = {identity(point): point for point in read_cells(
        path, identity, under="points", told="the points of a scan",
        fix="move it away, or name another folder with --out")}

    def keep(point: dict[str, Any]) -> None:
        known[identity(point)] = point
        write_result(path, {
            "method": method.name, "ipc": ipc, "points": list(known.values()),
            "command": "python -m experiments.tune " + shlex.join(sys.argv[1:]),
            "device": device_name(), "versions": versions(), "git_commit": git_commit()})

    for point, plan in wanted:
        name = identity(point)
        if name not in known:
            keep(measured(point, complete(plan, data.train, artefacts=store), data, options))
            print(f"{point['changes']}: {accuracy(known[name])}", flush=True)
        if options.full and not {"full_mean", "error"} & set(known[name]):
            recipe = complete(plan, data.train, artefacts=store)
            keep({**known[name], "full_mean": ceiling(recipe, data, options, store)})
    return [known[identity(point)] for point, _ in wanted]


def accuracy(point: Mapping[str, Any]) -> str:
    """What came out of a point, in a few words."""
    if "error" in point:
        return "not finite"
    return percent(point["accuracy_mean"], point["accuracy_std"])


def rows(points: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and rows of the printed table."""
    scan = list(dict.fromkeys(name for point in points for name in point["changes"]))
    titles = (*scan, "loss", "moved", "accuracy", "ceiling", "steps", "test steps", "seconds")
    told = []
    for point in points:
        cells = [str(point["changes"].get(name, "-")) for name in scan]
        if "error" in point:
            told.append((*cells, "-", "-", "not finite", "-", "-", "-", "-"))
            continue
        first, last = point["loss_first"], point["loss_last"]
        loss = "-" if first is None else f"{first:.4g} -> {last:.4g}"
        told.append((*cells, loss, f"{100 * point['moved']:.1f} %", accuracy(point),
                     percent(point.get("full_mean")), str(point["steps"]), str(point["test_steps"]),
                     f"{point['seconds']:.0f} + {point['test_seconds']:.0f}"))
    return titles, told


def main(options: Options) -> None:
    """Fills the grid and prints it."""
    if options.networks < 1:
        raise ConfigError(f"networks is {options.networks}, expected at least 1",
                          fix="pass --networks 2")
    print_table(*rows(fill(options)))


if __name__ == "__main__":
    keep_memory()
    try:
        main(tyro.cli(Options))
    except DDJaxError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
