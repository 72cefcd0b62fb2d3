"""Steps per second of any method, as a run takes them: compiled apart, real data, whole programs.

    python -m experiments.benchmarks steps METHOD --ipc 1 --protocol cpu --data fashion_mnist
        --steps 200

Prints one JSON object. The file imports nothing but dd_jax, so it also runs beside another release
of it: `PYTHONPATH=CHECKOUT python steps.py METHOD ...`; compare the two in turns, A B A B.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import sys
import time
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

import dd_jax as dd
from dd_jax.cli.allocator import keep_memory
from dd_jax.report.result import device_name
from dd_jax.versions import versions


@dataclasses.dataclass(frozen=True)
class Steps:
    """What to time.

    Attributes:
      method: by its name.
      ipc, protocol, data, seed: as for a run.
      steps: to be timed in all, after as many as `warm_up` says.
      warm_up: steps before them.
      rounds: that the steps are cut into.
      changes: JSON of settings that differ from the protocol's, such as '{"width": 16}'.
      artefacts: where what the method needs beforehand is kept; making it is timed apart.
      json: also write the object here.
    """

    method: Annotated[str, tyro.conf.Positional]
    ipc: float = 1
    protocol: str = "cpu"
    data: str = "fashion_mnist"
    seed: int = 0
    steps: int = 100
    warm_up: int = 5
    rounds: int = 5
    changes: str = "{}"
    artefacts: pathlib.Path | None = None
    json: pathlib.Path | None = None


def recipe_of(options: Steps, data: Any):
    """The complete recipe; in a release whose recipes are prepared, the prepared one."""
    changes = json.loads(options.changes)
    ipc = int(options.ipc) if options.ipc == int(options.ipc) else options.ipc
    given = dict(protocol=options.protocol, ipc=ipc, **changes)
    if hasattr(dd.distill, "prepared"):
        return dd.distill.prepared(dd.methods.recipe(options.method, data, **given), data.train,
                                   jax.random.key(options.seed))
    return dd.methods.recipe(options.method, data, artefacts=options.artefacts, **given)


def fed_by_the_host(rows: Any) -> bool:
    """Whether some of these rows are of a store of files and not of the real set."""
    def of_store(leaf):
        return hasattr(leaf, "store")

    return any(of_store(leaf) for leaf in jax.tree.leaves(rows, is_leaf=of_store))


def program(d, state, data, *, longest: int):
    """(state, count) -> (state, finite, steps done), compiled; and the seconds that it took."""
    start = time.perf_counter()
    if not fed_by_the_host(jax.eval_shape(d.sample, state, data)):
        run = jax.jit(d.run, static_argnames="length", donate_argnums=0)
        run = run.lower(state, data, 1, length=longest).compile()

        def many(state, count):
            state, metrics, done = run(state, data, count)
            return state, bool(metrics["finite"][int(done) - 1]), int(done)

        return many, time.perf_counter() - start
    sample = jax.jit(d.sample)
    batch = d.fetch(data, sample(state, data))
    step = jax.jit(d.step, donate_argnums=0).lower(state, batch).compile()

    def one_by_one(state, count):
        for done in range(count):
            state, metrics = step(state, d.fetch(data, sample(state, data)))
            if not bool(metrics["finite"]):
                return state, False, done
        return state, True, count

    return one_by_one, time.perf_counter() - start


def measure(options: Steps) -> dict[str, Any]:
    """Compiles, warms up and times the steps.

    Returns:
      JSON-able: steps_per_second over all rounds and of the median one, seconds of each round,
      prepare_seconds, init_seconds and compile_seconds, and what was timed.
    """
    data = dd.data.load(options.data)
    start = time.perf_counter()
    recipe = recipe_of(options, data)
    prepared = time.perf_counter()
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(options.seed), data.train)
    state = jax.block_until_ready(jax.tree.map(jnp.copy, state))
    begun = time.perf_counter()
    part = -(-options.steps // options.rounds)
    advance, compile_seconds = program(d, state, data.train, longest=max(part, options.warm_up))
    seconds, counts = [], []
    for count in (options.warm_up, *options.rounds * [part]):
        round_start = time.perf_counter()
        state, finite, done = advance(state, count)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - round_start)
        counts.append(done)
        if not finite:
            raise SystemExit(f"{options.method} stopped being finite after {sum(counts)} steps")
        if done < count:
            break  # the run's patience ended; what follows would be no steps
    timed = [(s, n) for s, n in zip(seconds[1:], counts[1:]) if n]
    if not timed:
        raise SystemExit(f"{options.method} ended in its warm-up, after {sum(counts)} steps")
    rates = [n / s for s, n in timed]
    return {
        "method": options.method, "ipc": options.ipc, "protocol": options.protocol,
        "data": options.data, "changes": json.loads(options.changes), "seed": options.seed,
        "steps": sum(n for _, n in timed),
        "steps_per_second": sum(n for _, n in timed) / sum(s for s, _ in timed),
        "median_steps_per_second": statistics.median(rates),
        "seconds_of_rounds": [round(s, 4) for s, _ in timed],
        "compile_seconds": round(compile_seconds, 2),
        "prepare_seconds": round(prepared - start, 2), "init_seconds": round(begun - prepared, 2),
        "device": device_name(), "versions": versions(),
    }


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Parses the words, measures and prints one JSON object; returns it."""
    options = tyro.cli(Steps, args=words, prog="python -m experiments.benchmarks steps")
    if min(options.steps, options.warm_up, options.rounds) < 1:
        raise SystemExit("steps, warm_up and rounds have to be at least 1")
    keep_memory()
    found = measure(options)
    print(json.dumps(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    try:
        main()
    except dd.errors.DDJaxError as error:
        sys.exit(f"{type(error).__name__}: {error}")
