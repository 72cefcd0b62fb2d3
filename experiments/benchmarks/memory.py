"""Working memory of compiled programs, by the compiler's own analysis: nothing is run."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.types import Batch, DataSpec, Objective, SyntheticSet


def temporary_bytes(fn, *args) -> int:
    """Working memory of the compiled program, arguments and results apart."""
    return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes


def grey_spec(num_classes: int) -> DataSpec:
    """28x28 grey images of so many classes."""
    return DataSpec("synthetic", (28, 28, 1), num_classes, tuple(map(str, range(num_classes))))


def objective_bytes(objective: Objective, spec: DataSpec, *, real: int, ipc: int) -> int:
    """Working memory of a class-wise objective's loss and its gradient in the synthetic images.

    Args:
      objective: whose batch is [K, real] images.
      spec: of the images.
      real, ipc: real and synthetic images per class.
    """

    def loss(images, labels, state, batch, key):
        return objective.loss(SyntheticSet(images, labels), state, batch, key)[0]

    def floats(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    classes = spec.num_classes
    images, labels = floats(classes * ipc, *spec.shape), floats(classes * ipc, classes)
    key = jax.eval_shape(jax.random.key, 0)
    state = jax.eval_shape(objective.init, key, SyntheticSet(images, labels))
    batch = Batch(floats(classes, real, *spec.shape),
                  jax.ShapeDtypeStruct((classes, real), jnp.int32))
    return temporary_bytes(jax.value_and_grad(loss), images, labels, state, batch, key)
