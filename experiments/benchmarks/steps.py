"""One iteration of DM, DataDAM, NCFM and FRePo at full width, and the evaluation of five networks.

    python -m experiments.benchmarks.steps [dm|datadam|ncfm|frepo|evaluation] [images per class]

The rival of a DM or FRePo step is the same step with native convolutions, whole batches and vmap
over classes: a straightforward JAX writing. DataDAM and NCFM are timed alone, with the settings of
their official codes (NCFM: a step of the optimiser for each class, twice). `torch_dm.py` and
`torch_distribution.py` time DM, DataDAM and NCFM in PyTorch.
"""

from __future__ import annotations

import dataclasses
import sys

import jax
import jax.numpy as jnp

import dd_jax as dd
from dd_jax import augment, evaluate, nets, objectives, pools
from dd_jax.cli.allocator import keep_memory
from experiments.benchmarks.timing import compiled, in_turns, report


def plain_objective(method: str, spec, width: int):
    """The method's objective as one would first write it."""
    if method == "dm":
        network = nets.convnet(spec, width=width, formulation="native")
        return objectives.mean_embedding(
            network, pools.fresh_pool(network), augmentation=augment.dsa(spec.shape),
            classes="vmap", chunk=10**6,
        )
    network = nets.convnet_doubling(spec, width=width, formulation="native")
    return objectives.feature_ridge(network, pools.ageing_pool(network), chunk=10**6)


def step_benchmark(method: str, ipc: int, *, width: int = 128) -> None:
    kept = keep_memory()
    data = dd.data.load("embedded").train
    recipe = dd.methods.recipe(method, data, ipc=ipc, width=width)
    plain = dataclasses.replace(recipe, objective=plain_objective(method, data.spec, width))
    calls, compile_seconds = {}, {}
    for name, which in (("plain jax", plain), ("ours", recipe)):
        d = dd.distillation(which)
        state = jax.jit(d.init)(jax.random.key(0), data)
        batch = d.fetch(data, d.sample(state, data))
        fn, compile_seconds[name] = compiled(d.step, state, batch)
        calls[name] = lambda fn=fn, state=state, batch=batch: fn(state, batch)
    report(f"{method}_ipc{ipc}_step", in_turns(calls, rounds=5), compile_seconds=compile_seconds,
           baseline="plain jax", width=width, allocator_keeps_memory=kept)


def alone(method: str, ipc: int, *, width: int = 128, **changes) -> None:
    """One iteration of a method, all its steps in one program."""
    kept = keep_memory()
    data = dd.data.load("embedded").train
    recipe = dd.methods.recipe(method, data, ipc=ipc, width=width, **changes)
    iterations = recipe.settings.get("iterations", recipe.steps)
    recipe = dd.distill.prepared(recipe, data, jax.random.key(1))
    d = dd.distillation(recipe)
    state, steps = jax.jit(d.init)(jax.random.key(0), data), recipe.steps // iterations
    fn, first = compiled(d.run, state, data, steps, steps, static_argnums=3)
    report(f"{method}_ipc{ipc}_step", in_turns({"ours": lambda: fn(state, data, steps, steps)},
                                               rounds=5),
           compile_seconds={"ours": first}, baseline="ours", width=width,
           allocator_keeps_memory=kept)


def evaluation_benchmark(ipc: int, *, width: int = 128, epochs: int = 10) -> None:
    """Five networks for ten epochs on a set, one by one against vmapped."""
    kept = keep_memory()
    data = dd.data.load("embedded")
    recipe = dd.methods.recipe("dm", data, ipc=ipc)
    protocol = recipe.evaluation.varied(width=width, epochs=epochs)
    images = jax.random.normal(jax.random.key(0), (10 * ipc, 28, 28, 1))
    labels = jax.nn.one_hot(jnp.repeat(jnp.arange(10), ipc), 10)
    distilled = dd.distill.package(recipe, dd.SyntheticSet(images, labels), data.train)
    few = dd.data.from_arrays(data.test.images[::200], data.test.labels[::200])
    calls, compile_seconds = {}, {}
    for how in ("vmap", "map"):
        def call(how=how):
            return evaluate.evaluate(distilled, few, protocol=protocol, key=jax.random.key(0),
                                     how=how).accuracies

        compile_seconds[how] = in_turns({how: call}, rounds=1)[how][0]
        calls[how] = call
    report(f"evaluation_ipc{ipc}_5x{epochs}_epochs", in_turns(calls, rounds=3),
           compile_seconds=compile_seconds, baseline="vmap", width=width,
           allocator_keeps_memory=kept)


if __name__ == "__main__":
    which = sys.argv[1] if len(sys.argv) > 1 else "dm"
    budget = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    if which == "evaluation":
        evaluation_benchmark(budget)
    elif which == "datadam":
        alone(which, budget)
    elif which == "ncfm":
        alone(which, budget, bank=1, bank_steps=1)
    else:
        step_benchmark(which, budget)
