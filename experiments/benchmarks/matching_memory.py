"""Working memory of matching steps and of kernel ridge regression; nothing is run.

For gradients "map" goes class by class and "vmap" takes all at once; "plain jax" is the vmapped
writing with native convolutions and without chunks. What is left of a kernel method to grow by
blocks is the kernel matrix itself and a copy of the images.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax import kernels, nets, objectives, pools
from dd_jax.types import Batch, DataSpec, Objective
from experiments.benchmarks.gradient_plain import plain_objective
from experiments.benchmarks.parts import floats, grey_spec, loss_of, made_up_set
from experiments.benchmarks.timing import Options, Shape, memory

BUDGET = 2**22  # bytes of one block: small, so that the blocks are many
BATCH = 256
DISCREPANCIES = {
    "mean_features": objectives.mean_features,
    "attention": objectives.attention,
    "kernel_means": objectives.kernel_means,
    "characteristic_function": lambda: objectives.characteristic_function(
        objectives.normal_frequencies(1024)),
}


def class_wise(objective: Objective, spec: DataSpec, *, real: int, ipc: int, fields) -> Shape:
    """A class-wise objective's loss and its gradient in the synthetic images."""
    key = jax.eval_shape(jax.random.key, 0)
    synthetic = jax.eval_shape(lambda: made_up_set(ipc, spec))
    state = jax.eval_shape(objective.init, key, synthetic)
    batch = Batch(floats(spec.num_classes, real, *spec.shape),
                  jax.ShapeDtypeStruct((spec.num_classes, real), jnp.int32))
    return Shape(fields, jax.value_and_grad(loss_of(objective)),
                 (*synthetic[:2], state, batch, key))


def distributions(options: Options) -> None:
    """Distribution matching against the real batch and the synthetic set."""
    spec, width = grey_spec(), options.width or 32
    network = nets.convnet(spec, width=width)

    def shapes():
        for name, make in DISCREPANCIES.items():
            for real, ipc in ((64, 1), (256, 1), (1024, 1), (64, 10), (64, 50)):
                objective = objectives.distribution_matching(network, pools.fresh_pool(network),
                                                             make(), batch_size=real)
                yield class_wise(objective, spec, real=real, ipc=ipc, fields={
                    "discrepancy": name, "real_per_class": real, "ipc": ipc})

    memory("distribution_memory", shapes(), options, width=width)


def gradients(options: Options) -> None:
    """DC's loss and its gradient against the number of classes."""
    width = options.width or 32

    def matching(how: str, spec: DataSpec) -> Objective:
        network = nets.convnet(spec, width=width)
        pool = pools.inner_trained_pool(network, uses=1, epochs=1, optimizer=optax.sgd(0.01))
        plain = how == "plain jax"
        objective = objectives.gradient_matching(network, pool, batch_size=BATCH,
                                                 classes="vmap" if plain else how)
        if not plain:
            return objective
        return plain_objective(objective, nets.convnet(spec, width=width, formulation="native"))

    shapes = (class_wise(matching(how, grey_spec(classes)), grey_spec(classes), real=BATCH,
                         ipc=ipc, fields={"how": how, "ipc": ipc, "classes": classes})
              for how in ("map", "vmap", "plain jax") for ipc in (1, 10) for classes in (10, 100))
    suffix = "" if width == 32 else f"_width{width}"
    memory(f"gradient_memory{suffix}", shapes, options, width=width, real_per_class=BATCH)


def kernel_ridge(options: Options) -> None:
    """A KIP gradient against the number of real images."""
    def shapes():
        for name in ("fc3", "convnet3"):
            plain = kernels.named(name)
            blocks = kernels.blockwise(plain, budget_bytes=BUDGET)
            for how, kernel in (("blockwise", blocks), ("at once", plain)):
                for real in (1000, 5000, 20000):
                    loss = loss_of(objectives.kernel_ridge(kernel, batch_size=real))
                    batch = Batch(floats(real, 28, 28, 1), jax.ShapeDtypeStruct((real,), jnp.int32))
                    yield Shape({"kernel": name, "how": how, "real_images": real}, jax.grad(loss),
                                (floats(100, 28, 28, 1), floats(100, 10), (), batch, None))

    memory("kernel_memory", shapes(), options, set_images=100)
