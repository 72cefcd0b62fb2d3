"""Steps of methods at full width, a ConvNet's gradient, and the evaluation of five networks.

The rival of a DM or FRePo step is the same step with native convolutions, whole batches and vmap
over classes: a straightforward JAX writing. DataDAM and NCFM are timed alone, with the settings of
their official codes (NCFM: a step of the optimizer for each class, twice). `torch_dm.py` and
`torch_distribution.py` time DM, DataDAM and NCFM in PyTorch.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

import dd_jax as dd
from dd_jax import augment, evaluate, nets, objectives, pools
from experiments.benchmarks.parts import embedded, grey_spec, made_up_set, one_step
from experiments.benchmarks.timing import Options, Rival, race


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


def against_plain(method: str, options: Options) -> None:
    """One step of DM or FRePo."""
    data, width = embedded(), options.width or 128
    recipe = dd.methods.recipe(method, data, ipc=options.ipc, width=width)
    plain = dataclasses.replace(recipe, objective=plain_objective(method, data.spec, width))
    race(f"{method}_ipc{options.ipc}_step",
         {"plain jax": one_step(plain, data), "ours": one_step(recipe, data)}, options,
         width=width)


def alone(method: str, options: Options, **changes) -> None:
    """One iteration of a method, all its steps in one program."""
    data, width = embedded(), options.width or 128
    recipe = dd.methods.recipe(method, data, ipc=options.ipc, width=width, **changes)
    steps = recipe.steps // recipe.settings.get("iterations", recipe.steps)
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), data)
    race(f"{method}_ipc{options.ipc}_step",
         {"ours": Rival(lambda state, data: d.run(state, data, steps, steps), (state, data))},
         options, width=width)


def evaluation(options: Options, *, epochs: int = 10) -> None:
    """Five networks for ten epochs on a set, one by one against vmapped."""
    data, width = dd.data.load("embedded"), options.width or 128
    recipe = dd.methods.recipe("dm", data, ipc=options.ipc)
    protocol = recipe.evaluation.varied(width=width, epochs=epochs)
    distilled = dd.distill.package(recipe, made_up_set(options.ipc), data.train)
    few = dd.data.from_arrays(data.test.images[::200], data.test.labels[::200])

    def call(how):
        return evaluate.evaluate(distilled, few, protocol=protocol, key=jax.random.key(0),
                                 how=how).accuracies

    race(f"evaluation_ipc{options.ipc}_5x{epochs}_epochs",
         {how: Rival(call, (how,), jit=False) for how in ("vmap", "map")}, options, width=width)


def convnet(options: Options) -> None:
    """ConvNet-3 forward and backward on 256 images: matrix-product convolutions, native ones."""
    width, spec = options.width or 128, grey_spec()
    images = jax.random.normal(jax.random.key(0), (256, *spec.shape))
    labels, rivals = jnp.arange(256) % 10, {}
    for name, formulation, chunk in (("native", "native", 256), ("ours", "auto", 16),
                                     ("ours, one chunk", "auto", 256)):
        network = nets.convnet(spec, width=width, formulation=formulation)
        rivals[name] = Rival(partial(_gradient, network, chunk),
                             (network.init(jax.random.key(1))["params"], images, labels))
    race(f"convnet_width{width}_batch256", rivals, options)


def _gradient(network, chunk, params, images, labels):
    """Of the mean cross-entropy in the parameters, accumulated over chunks of the batch."""

    def of_chunk(params, images, labels):
        logits = network.apply({"params": params}, images).logits
        return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]) / 256

    if chunk == len(images):
        return jax.grad(of_chunk)(params, images, labels)
    parts = (images.reshape(-1, chunk, *images.shape[1:]), labels.reshape(-1, chunk))

    def add(total, part):
        return jax.tree.map(jnp.add, total, jax.grad(of_chunk)(params, *part)), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), parts)[0]
