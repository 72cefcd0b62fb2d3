"""Accuracy against distillation time at the official width, within a time budget.

    python -m experiments.accuracy_over_time --minutes 15

Runs a method with the paper's networks and evaluation, but with a budget of minutes instead of its
number of steps; stops the clock while networks are tested. Leaves a result file and a curve.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
import sys
import time

import jax
import tyro

import dd_jax as dd
from dd_jax import evaluate
from dd_jax.cli.allocator import keep_memory
from dd_jax.report import curve, save_grid
from dd_jax.report.result import build_result, write_result

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Options:
    """One run.

    Attributes:
      method, ipc, data, seed: what to distil.
      minutes: of distillation.
      points: how often accuracy is measured on the way, with one network each.
      networks: tested at the end.
      changes: JSON of settings that differ from the official ones.
    """

    method: str = "frepo"
    ipc: int = 1
    data: str = "fashion_mnist"
    seed: int = 0
    minutes: float = 15.0
    points: int = 5
    networks: int = 5
    changes: str = "{}"


def main(options: Options) -> None:
    keep_memory()
    data = dd.data.load(options.data)
    changes = json.loads(options.changes)
    recipe = dd.methods.recipe(options.method, data, ipc=options.ipc, **changes)
    recipe = dataclasses.replace(recipe, best_so_far=None)  # every point is the set of its time
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(options.seed), data.train)
    run = jax.jit(d.run, static_argnames="length", donate_argnums=0)
    common = dict(protocol=recipe.evaluation, key=jax.random.key(options.seed + 1))
    spent, times, accuracies, steps = 0.0, [], [], []
    budget = 60 * options.minutes
    for point in range(1, options.points + 1):
        while spent < budget * point / options.points and int(state.step) < recipe.steps:
            start = time.perf_counter()
            state, metrics, _ = run(state, data.train, 5, length=8)
            if not float(metrics["finite"][0]):
                raise SystemExit(f"not finite after step {int(state.step)}: lower the rate")
            spent += time.perf_counter() - start
        distilled = dd.distill.package(recipe, d.decode(state), data.train,
                                       stored_bytes=dd.synthetic.stored_bytes(state.params))
        seeds = options.networks if point == options.points else 1
        tested = evaluate.evaluate(distilled, data.test, seeds=seeds, **common)
        times.append(round(spent / 60, 2))
        accuracies.append(tested.mean)
        steps.append(int(state.step))
        print(f"{spent / 60:.1f} min, step {steps[-1]}, loss {float(metrics['loss'][0]):.4f}: "
              f"{tested.mean:.4f} ({seeds} networks, {tested.seconds:.0f} s)", flush=True)
    random = evaluate.evaluate_random(
        data, normaliser=recipe.normaliser, ipc=options.ipc, label_kind=recipe.labels.kind,
        label_scale=recipe.labels.scale, seeds=options.networks, **common,
    )
    published = dd.methods.get(options.method).published.get((options.data, options.ipc))
    name = f"{options.method}_ipc{options.ipc}_official_{options.minutes:g}min"
    folder = HERE / "results" / options.data
    result = build_result(
        method=options.method, data=options.data, ipc=options.ipc,
        protocol=f"official networks, {options.minutes:g} minutes", accuracy_mean=tested.mean,
        accuracy_std=tested.std, networks=options.networks, random_mean=random.mean,
        random_std=random.std, full_mean=None, published=published and published._asdict(),
        distill_seconds=round(spent, 1), evaluate_seconds=round(tested.seconds, 1),
        steps=int(state.step), bytes=distilled.stored_bytes, seed=options.seed,
        command="python -m experiments.accuracy_over_time " + shlex.join(sys.argv[1:]),
        settings=dict(recipe.settings), evaluation=dict(distilled.evaluation),
        minutes=times, accuracies_over_time=accuracies, steps_over_time=steps,
    )
    write_result(folder / f"{name}.json", result)
    curve(folder / f"{name}.png", {options.method: (times, [100 * a for a in accuracies])},
          xlabel="minutes of distillation", ylabel="test accuracy, %")
    save_grid(folder / f"{name}_grid.png", distilled)


if __name__ == "__main__":
    main(tyro.cli(Options))
