"""Steps of DC and of IDC, and DC's inner loop: ours against a plain JAX writing of the same.

    python -m experiments.benchmarks.gradient_steps update|inner|idc [--ipc 1] [--width 128]
        [--rounds 5] [--only ours|plain]

`torch_dc.py` times the same steps in PyTorch. The plain writing of DC's update needs memory for all
classes at once, about 5 GB at width 128; `--only ours` leaves it out.
"""

from __future__ import annotations

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import optax

import dd_jax as dd
from dd_jax import augment, nets, pools
from dd_jax.cli.allocator import keep_memory
from dd_jax.data import gather, normalise
from experiments.benchmarks.gradient_plain import (
    plain_idc_step,
    plain_inner_loop,
    plain_objective,
)
from experiments.benchmarks.timing import in_turns, report


def update_case(data, ipc: int, width: int) -> dict:
    """DC's step on the images, each time with a fresh network: the network never trains."""
    recipe = dd.methods.recipe("dc", data, ipc=ipc, width=width, uses=1)
    native = nets.convnet(data.spec, width=width, formulation="native")
    calls = {}
    for name, objective in (("plain jax", plain_objective(recipe.objective, native)),
                            ("ours", recipe.objective)):
        d = dd.distillation(dataclasses.replace(recipe, objective=objective))
        state = jax.jit(d.init)(jax.random.key(0), data)
        batch = d.fetch(data, d.sample(state, data))
        step = jax.jit(d.step)
        calls[name] = lambda step=step, state=state, batch=batch: step(state, batch)
    return calls


def inner_case(data, ipc: int, width: int) -> dict:
    """Fifty SGD steps of a network on a synthetic set."""
    shape = (data.spec.num_classes * ipc, *data.spec.shape)
    labels = jax.nn.one_hot(jnp.repeat(jnp.arange(data.spec.num_classes), ipc), 10)
    synthetic = dd.SyntheticSet(jax.random.normal(jax.random.key(0), shape), labels)
    pool = pools.inner_trained_pool(nets.convnet(data.spec, width=width), uses=10, epochs=50,
                                    optimizer=optax.sgd(0.01))
    state = jax.jit(pool.init)(jax.random.key(1), synthetic)
    advance = jax.jit(pool.advance)
    loop = plain_inner_loop(nets.convnet(data.spec, width=width, formulation="native"))
    params = state.variables["params"]
    return {"plain jax": lambda: loop(params, *synthetic[:2]),
            "ours": lambda: advance(state, synthetic, jax.random.key(2)).variables["params"]}


def idc_case(data, ipc: int, width: int) -> dict:
    """Ten classes in turn, then 500 real images: ten steps of the library in one program."""
    recipe = dd.methods.recipe("idc", data, ipc=ipc, width=width)
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), data)
    run = jax.jit(d.run, static_argnums=3)

    rows = d.sample(state, data)
    real, images = (normalise(recipe.normaliser, gather(data, rows[name])[0])
                    for name in ("match", "train"))
    labels = jax.nn.one_hot(gather(data, rows["train"])[1], 10)

    def decode(stored):
        return recipe.parameterization.decode({**state.params, "images": stored},
                                              jax.random.key(0)).images

    step = plain_idc_step(nets.convnet(data.spec, width=width, formulation="native"), decode,
                          augment.by_name("idc_matching", data.spec.shape),
                          augment.by_name("idc_training", data.spec.shape))
    stored, params = state.params["images"], state.objective.inner.variables["params"]
    return {"plain jax": lambda: step(stored, params, real, images, labels, jax.random.key(3)),
            "ours": lambda: run(state, data, 10, 10)}


CASES = {"update": ("dc_ipc{}_update", update_case), "inner": ("dc_ipc{}_inner_loop", inner_case),
         "idc": ("idc_ipc{}_step", idc_case)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("ours", "plain"))
    options = parser.parse_args()
    kept = keep_memory()
    data = dd.data.load("embedded").train
    name, make = CASES[options.case]
    calls = make(data, options.ipc, options.width)
    if options.only:
        calls = {k: call for k, call in calls.items() if k.startswith(options.only)}
    first = {k: in_turns({k: call}, rounds=1)[k][0] for k, call in calls.items()}
    seconds = in_turns(calls, rounds=options.rounds)
    # The first call compiles and runs.
    compile_seconds = {k: max(0.0, first[k] - min(seconds[k])) for k in calls}
    suffix = "" if options.width == 128 else f"_width{options.width}"
    suffix += f"_{options.only}" if options.only else ""
    report(name.format(options.ipc) + suffix, seconds, compile_seconds=compile_seconds,
           baseline=next(iter(calls)), width=options.width, allocator_keeps_memory=kept)


if __name__ == "__main__":
    main()
