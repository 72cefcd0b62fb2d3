"""What several cases are made of: made-up sets, batches and steps of methods."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import dd_jax as dd
from dd_jax.types import DataSpec, Objective, RealData, SyntheticSet
from experiments.benchmarks.timing import Rival

CLASSES = 10


def grey_spec(num_classes: int = CLASSES) -> DataSpec:
    """28x28 grey images of so many classes."""
    return DataSpec("synthetic", (28, 28, 1), num_classes, tuple(map(str, range(num_classes))))


def made_up_set(ipc: int, spec: DataSpec | None = None) -> SyntheticSet:
    """Normal noise with hard labels, class after class."""
    spec = spec or grey_spec()
    labels = jnp.repeat(jnp.arange(spec.num_classes), ipc)
    images = jax.random.normal(jax.random.key(1), (len(labels), *spec.shape))
    return SyntheticSet(images, jax.nn.one_hot(labels, spec.num_classes))


def floats(*shape: int) -> jax.ShapeDtypeStruct:
    """The shape of a float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def embedded() -> RealData:
    """The embedded training set."""
    return dd.data.load("embedded").train


def one_step(recipe, data: RealData) -> Rival:
    """The recipe's step on its first batch."""
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), data)
    return Rival(d.step, (state, d.fetch(data, d.sample(state, data))))


def loss_of(objective: Objective):
    """(images, labels, state, batch, key) -> its scalar."""

    def loss(images, labels, state, batch, key):
        return objective.loss(SyntheticSet(images, labels), state, batch, key)[0]

    return loss
