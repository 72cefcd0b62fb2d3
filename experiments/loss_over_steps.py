"""Methods by one measure: a loss on networks and on test images that none of them has seen.

    python -m experiments.loss_over_steps dream --ipc 1 --steps 400
    python -m experiments.loss_over_steps sampler --ipc 1 --steps 1000 --every 100

The loss that a run reports depends on the real batches and on the networks or frequencies that it
was given: representative batches are easier to match, and a learned sampler looks for what does not
match. So all sets are measured, on the way, by one objective on the same random test images with
the same networks. Leaves a result file and a curve in experiments/comparisons.

  dream    IDC against DREAM, by IDC's objective at ages spread over its inner loop
  sampler  NCFM with normal, learned and tiled frequencies, by its discrepancy at normal ones
"""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
import sys
import time

import jax
import jax.numpy as jnp
import tyro

import dd_jax as dd
from dd_jax import evaluate
from dd_jax.cli.allocator import keep_memory
from dd_jax.distill import outer
from dd_jax.errors import unknown
from dd_jax.report import curve
from dd_jax.report.result import device_name, git_commit, write_result
from dd_jax.versions import versions

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rivals, name -> (method, changed settings), and the one whose objective measures all."""

    rivals: dict[str, tuple[str, dict]]
    measured_by: tuple[str, dict]


COMPARISONS = {
    "dream": Comparison({"idc": ("idc", {}), "dream": ("dream", {})}, ("idc", {})),
    "sampler": Comparison(
        {name: ("ncfm", {"sampler": name}) for name in ("normal", "learned", "tiled")},
        ("ncfm", {"calibration": 0.0, "frequencies": 1024}),
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """One comparison.

    Attributes:
      comparison: a name in COMPARISONS.
      data, ipc, seed: what to distil.
      steps: of each method.
      every: steps between two measurements.
      measures: networks and real batches of a measurement.
      networks: tested at each fourth measurement.
    """

    comparison: tyro.conf.Positional[str]
    data: str = "fashion_mnist"
    ipc: int = 1
    seed: int = 0
    steps: int = 400
    every: int = 25
    measures: int = 8
    networks: int = 2


def common_measure(recipe, split, key: jax.Array, count: int):
    """A function of a set: the mean loss of the recipe's objective in `count` fixed situations.

    Pools of these methods are trained on real images, so their networks do not depend on the set.
    """
    objective = recipe.objective
    start_key, init_key, ages_key, measure_key = jax.random.split(key, 4)
    start = recipe.start(split.train, start_key)
    start = recipe.parameterization.decode(recipe.parameterization.init(start_key, start),
                                           start_key)

    def real(data, state, key):
        batch = outer.fetch(data, objective.sample(data, state, key))
        return outer.in_model_space(recipe.normaliser, batch)

    @jax.jit
    def next_state(state, key):
        def older(i, state):
            rows_key, advance_key = jax.random.split(jax.random.fold_in(key, i))
            batch = real(split.train, state, rows_key)
            return objective.advance(start, state, batch, advance_key)

        return jax.lax.fori_loop(0, max(1, recipe.settings.get("uses", 1) // count), older, state)

    state = objective.init(init_key, start)
    states = []
    for i in range(count):
        states.append(state)
        state = next_state(state, jax.random.fold_in(ages_key, i))
    states = jax.tree.map(lambda *x: jnp.stack(x), *states)
    keys = jax.random.split(measure_key, count)

    @jax.jit
    def measure(synthetic):
        def one(args):
            state, key = args
            rows_key, loss_key = jax.random.split(key)
            batch = real(split.test, state, rows_key)
            return objective.loss(synthetic, state, batch, loss_key)[0]

        return jnp.mean(jax.lax.map(one, (states, keys)))

    return measure


def followed(recipe, data, options: Options, measure) -> dict:
    """Distils, and measures the set on the way."""
    recipe = dataclasses.replace(recipe, best_so_far=None)  # every row is the set of its step
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(options.seed), data.train)
    run = jax.jit(d.run, static_argnames="length", donate_argnums=0)
    rows = {"steps": [], "loss": [], "accuracy_steps": [], "accuracy": [], "seconds": []}
    spent = 0.0
    step = 0
    while True:
        if rows["steps"]:
            start, count = time.perf_counter(), min(options.every, options.steps - step)
            state = run(state, data.train, count, length=options.every)[0]
            jax.block_until_ready(state.params)
            spent, step = spent + time.perf_counter() - start, step + count
        synthetic = d.decode(state)
        rows["steps"].append(step)
        rows["loss"].append(float(measure(synthetic)))
        rows["seconds"].append(round(spent, 1))
        if step == options.steps or (step and step % (4 * options.every) == 0):
            distilled = dd.distill.package(recipe, synthetic, data.train)
            tested = evaluate.evaluate(distilled, data.test, protocol=recipe.evaluation,
                                       key=jax.random.key(1), seeds=options.networks)
            rows["accuracy_steps"].append(step)
            rows["accuracy"].append([round(float(x), 4) for x in tested.accuracies])
        print(recipe.method, step, f"{rows['loss'][-1]:.3f}", rows["accuracy"][-1:], flush=True)
        if step == options.steps:
            return rows


def main(options: Options) -> None:
    if options.comparison not in COMPARISONS:
        raise unknown("comparison", options.comparison, COMPARISONS)
    keep_memory()
    data = dd.data.load(options.data)
    comparison = COMPARISONS[options.comparison]

    def recipe_of(method, changes):
        return dd.methods.recipe(method, data, protocol="cpu", ipc=options.ipc, **changes)

    judge = recipe_of(*comparison.measured_by)
    measure = common_measure(judge, data, jax.random.key(1000), options.measures)
    recipes = {name: recipe_of(*rival) for name, rival in comparison.rivals.items()}
    found = {name: followed(recipe, data, options, measure) for name, recipe in recipes.items()}
    first = next(iter(found))
    last = found[first]["loss"][-1]
    reached = {name: next((s for s, x in zip(f["steps"], f["loss"]) if x <= last), None)
               for name, f in found.items()}
    folder = HERE / "comparisons"
    stem = f"{options.comparison}_{options.data}_ipc{options.ipc}"
    write_result(folder / f"{stem}.json", {
        "command": "python -m experiments.loss_over_steps " + shlex.join(sys.argv[1:]),
        "device": device_name(), "versions": versions(), "git_commit": git_commit(),
        "options": dataclasses.asdict(options), "found": found,
        "last_loss_of": first, "last_loss": last, "reached_at_step": reached,
        "settings": {name: dict(recipe.settings) for name, recipe in recipes.items()},
    })
    curve(folder / f"{stem}.png", {n: (f["steps"], f["loss"]) for n, f in found.items()},
          xlabel="steps", ylabel="loss on networks and images that none has seen")
    print(f"{first} ends at {last:.3f} after {options.steps} steps; the others are there after "
          f"{reached}")


if __name__ == "__main__":
    main(tyro.cli(Options))
