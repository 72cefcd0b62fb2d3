"""Steps of DC and of IDC, and DC's inner loop: ours against a plain JAX writing of the same.

`torch_dc.py` times the same steps in PyTorch. The plain writing of DC's update needs memory for all
classes at once, about 5 GB at width 128; `--only ours` leaves it out.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import optax

import dd_jax as dd
from dd_jax import augment, nets, pools
from dd_jax.data import gather, normalise
from experiments.benchmarks.gradient_plain import (
    plain_idc_step,
    plain_inner_loop,
    plain_objective,
)
from experiments.benchmarks.parts import embedded, made_up_set, one_step
from experiments.benchmarks.timing import Options, Rival, race


def _native(data, width: int):
    return nets.convnet(data.spec, width=width, formulation="native")


def update(data, ipc: int, width: int) -> dict[str, Rival]:
    """DC's step on the images, each time with a fresh network: the network never trains."""
    recipe = dd.methods.recipe("dc", data, ipc=ipc, width=width, uses=1)
    plain = plain_objective(recipe.objective, _native(data, width))
    return {"plain jax": one_step(dataclasses.replace(recipe, objective=plain), data),
            "ours": one_step(recipe, data)}


def inner_loop(data, ipc: int, width: int) -> dict[str, Rival]:
    """Fifty SGD steps of a network on a synthetic set."""
    synthetic = made_up_set(ipc, data.spec)
    pool = pools.inner_trained_pool(nets.convnet(data.spec, width=width), uses=10, epochs=50,
                                    optimizer=optax.sgd(0.01))
    state = jax.jit(pool.init)(jax.random.key(1), synthetic)

    def ours(state, synthetic, key):
        return pool.advance(state, synthetic, key).variables["params"]

    return {"plain jax": Rival(plain_inner_loop(_native(data, width)),
                               (state.variables["params"], *synthetic[:2]), jit=False),
            "ours": Rival(ours, (state, synthetic, jax.random.key(2)))}


def idc(data, ipc: int, width: int) -> dict[str, Rival]:
    """Ten classes in turn, then 500 real images: ten steps of the library in one program."""
    recipe = dd.methods.recipe("idc", data, ipc=ipc, width=width)
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), data)
    rows = d.sample(state, data)
    real, images = (normalise(recipe.normaliser, gather(data, rows[name])[0])
                    for name in ("match", "train"))
    labels = jax.nn.one_hot(gather(data, rows["train"])[1], 10)

    def decode(stored):
        return recipe.parameterization.decode({**state.params, "images": stored},
                                              jax.random.key(0)).images

    step = plain_idc_step(_native(data, width), decode,
                          augment.by_name("idc_matching", data.spec.shape),
                          augment.by_name("idc_training", data.spec.shape))
    given = (state.params["images"], state.objective.inner.variables["params"], real, images,
             labels, jax.random.key(3))
    return {"plain jax": Rival(step, given, jit=False),
            "ours": Rival(lambda state, data: d.run(state, data, 10, 10), (state, data))}


def run(name: str, make, options: Options) -> None:
    """One of these races."""
    width = options.width or 128
    suffix = "" if width == 128 else f"_width{width}"
    race(name.format(options.ipc) + suffix, make(embedded(), options.ipc, width), options,
         width=width)


RACES = {"dc_update": partial(run, "dc_ipc{}_update", update),
         "dc_inner_loop": partial(run, "dc_ipc{}_inner_loop", inner_loop),
         "idc": partial(run, "idc_ipc{}_step", idc)}
