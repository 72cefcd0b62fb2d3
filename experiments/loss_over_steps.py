"""IDC and DREAM by one measure: the loss on networks and on test images that neither has seen.

    python -m experiments.loss_over_steps --ipc 1 --steps 400

The loss that a run reports depends on the real batches that it was given, and representative ones
are easier to match. So both sets are measured, on the way, by IDC's objective on the same random
batches with the same network, at ages spread over IDC's inner loop. Leaves a result file and a
curve in experiments/comparisons.
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
from dd_jax.report import curve
from dd_jax.report.result import device_name, git_commit, write_result
from dd_jax.versions import versions

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Options:
    """One comparison.

    Attributes:
      data, ipc, seed: what to distil.
      steps: of each method.
      every: steps between two measurements.
      measures: networks and real batches of a measurement.
      networks: tested at each fourth measurement.
    """

    data: str = "fashion_mnist"
    ipc: int = 1
    seed: int = 0
    steps: int = 400
    every: int = 25
    measures: int = 8
    networks: int = 2


def common_measure(recipe, split, key: jax.Array, count: int):
    """A function of a set: the mean loss of the recipe's objective in `count` fixed situations.

    The pool of IDC is trained on real images, so its networks do not depend on the set.
    """
    objective = recipe.objective
    start = recipe.initialise(split.train, jax.random.fold_in(key, 0))
    start = recipe.parameterization.decode(recipe.parameterization.init(key, start), key)

    def real(data, state, key):
        batch = outer.fetch(data, objective.sample(data, state, key))
        return outer.in_model_space(recipe.normaliser, batch)

    @jax.jit
    def next_state(state, key):
        def older(i, state):
            own = jax.random.fold_in(key, i)
            return objective.advance(start, state, real(split.train, state, own), own)

        return jax.lax.fori_loop(0, recipe.settings["uses"] // count, older, state)

    state = objective.init(key, start)
    states = []
    for i in range(count):
        states.append(state)
        state = next_state(state, jax.random.fold_in(key, 1 + i))
    states = jax.tree.map(lambda *x: jnp.stack(x), *states)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, 100 + i))(jnp.arange(count))

    @jax.jit
    def measure(synthetic):
        def one(args):
            state, key = args
            return objective.loss(synthetic, state, real(split.test, state, key), key)[0]

        return jnp.mean(jax.lax.map(one, (states, keys)))

    return measure


def main(options: Options) -> None:
    keep_memory()
    data = dd.data.load(options.data)
    names = ("idc", "dream")
    recipes = {name: dd.methods.recipe(name, data, protocol="cpu", ipc=options.ipc)
               for name in names}
    measure = common_measure(recipes["idc"], data, jax.random.key(1000), options.measures)
    found = {name: {"steps": [], "loss": [], "accuracy_steps": [], "accuracy": [], "seconds": []}
             for name in names}
    for name, recipe in recipes.items():
        d = dd.distillation(recipe)
        state = jax.jit(d.init)(jax.random.key(options.seed), data.train)
        run = jax.jit(d.run, static_argnames="length", donate_argnums=0)
        spent, rows = 0.0, found[name]
        for step in range(0, options.steps + 1, options.every):
            if step:
                start = time.perf_counter()
                state = run(state, data.train, options.every, length=options.every)[0]
                jax.block_until_ready(state.params)
                spent += time.perf_counter() - start
            synthetic = d.decode(state)
            rows["steps"].append(step)
            rows["loss"].append(float(measure(synthetic)))
            rows["seconds"].append(round(spent, 1))
            if step and step % (4 * options.every) == 0:
                distilled = dd.distill.package(recipe, synthetic, data.train)
                tested = evaluate.evaluate(distilled, data.test, protocol=recipe.evaluation,
                                           key=jax.random.key(1), seeds=options.networks)
                rows["accuracy_steps"].append(step)
                rows["accuracy"].append(tested.mean)
            print(name, step, f"{rows['loss'][-1]:.2f}", rows["accuracy"][-1:], flush=True)
    last = found["idc"]["loss"][-1]
    reached = [step for step, loss in zip(found["dream"]["steps"], found["dream"]["loss"])
               if loss <= last]
    folder = HERE / "comparisons"
    stem = f"idc_dream_{options.data}_ipc{options.ipc}"
    write_result(folder / f"{stem}.json", {
        "command": "python -m experiments.loss_over_steps " + shlex.join(sys.argv[1:]),
        "device": device_name(), "versions": versions(), "git_commit": git_commit(),
        "options": dataclasses.asdict(options), "found": found,
        "idc_last_loss": last, "dream_reaches_it_at_step": reached[0] if reached else None,
        "settings": {name: dict(recipe.settings) for name, recipe in recipes.items()},
    })
    curve(folder / f"{stem}.png", {n: (f["steps"], f["loss"]) for n, f in found.items()},
          xlabel="matching steps", ylabel="IDC's loss, network and images that neither saw")
    print(f"IDC ends at {last:.2f} after {options.steps} steps; DREAM is there after "
          f"{reached[0] if reached else 'more than ' + str(options.steps)}")


if __name__ == "__main__":
    main(tyro.cli(Options))
