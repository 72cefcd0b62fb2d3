"""Training of one fresh network by a protocol, as a pure function."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError
from dd_jax.evaluate.optimizers import optimizer_of
from dd_jax.evaluate.protocol import Protocol
from dd_jax.labels.supervision import Supervision
from dd_jax.train.batches import Batches, permuted_epochs, planned
from dd_jax.train.fit import Take, augmented, fit
from dd_jax.train.plans import Plan, class_rows, stored_order
from dd_jax.train.replay import Replay
from dd_jax.types import Augmentation, Network, PyTree

_INIT, _EPOCH, _PLAN = range(3)


def train(
    network: Network,
    protocol: Protocol,
    *,
    size: int,
    take: Take,
    augmentation: Augmentation | None,
    supervision: Supervision | Replay,
    epochs: int,
    batch_size: int,
    key: jax.Array,
    weights: jax.Array | None = None,
) -> PyTree:
    """Trains a fresh network on a set of `size` images.

    Every epoch is a new permutation, see `train.permuted_epochs`. A protocol of another order has a
    plan of all steps instead, see `train.plans`.

    Args:
      network: the architecture.
      protocol: optimiser, schedule, order, CutMix and mixup.
      size: M, number of images.
      take: rows [b] int32, or None for all -> (images [b, H, W, C] float32 in model space, labels
        [b, K]).
      augmentation: applied to every batch, one draw per image.
      supervision: targets and loss; or a `Replay`, which has its own views and batches.
      epochs, batch_size: of this run.
      key: PRNG key.
      weights: [M] by which the images count; all the same by default.

    Returns:
      The trained variables.
    """
    seed = protocol.start_seed
    variables = network.init(
        jax.random.fold_in(key, _INIT) if seed is None else jax.random.key(seed))
    if isinstance(supervision, Replay):
        weights = None if weights is None else jnp.asarray(weights)
        shown = supervision.arguments(take, epochs, jax.random.fold_in(key, _PLAN), weights=weights)
        return fit(network, variables, key=jax.random.fold_in(key, _EPOCH), **shown,
                   optimizer=optimizer_of(protocol.optimizer, epochs, shown["batches"].steps),
                   ).variables
    batches = _batches(protocol.plan.order, take, jax.random.fold_in(key, _PLAN), size=size,
                       batch_size=min(batch_size, size), epochs=epochs)
    return fit(
        network, variables, take=take, batches=batches,
        optimizer=optimizer_of(protocol.optimizer, epochs, batches.steps),
        key=jax.random.fold_in(key, _EPOCH), supervision=supervision,
        weights=None if weights is None else jnp.asarray(weights),
        views=augmented(augmentation, mix=protocol.views.cutmix, blend=protocol.views.mixup),
    ).variables


def _batches(order: str, take: Take, key, *, size: int, batch_size: int, epochs: int) -> Batches:
    """The images of every step of a run in the protocol's order."""
    batches = permuted_epochs(size, batch_size, epochs)
    if order == "random":
        return batches
    classes = jax.eval_shape(take, jnp.zeros((1,), jnp.int32))[1].shape[-1]
    rows = _plan(order, classes, batch_size)(key, size, epochs * batches.steps)
    return planned(rows, epochs=epochs, steps=batches.steps)


def check_order(order: str, classes: int, *, batch_size: int, size: int) -> None:
    """Refuses batches of an order that is not "random", where a set cannot be cut into them.

    Raises:
      ConfigError: as said.
    """
    plan = _plan(order, classes, min(batch_size, size))
    jax.eval_shape(lambda key: plan(key, size, 1), jax.random.key(0))


def _plan(order: str, classes: int, batch_size: int) -> Plan:
    """The rows of all steps of an order that is not "random"."""
    per_class = max(1, batch_size // classes)
    if batch_size > classes * per_class or (order == "stored" and batch_size < classes):
        raise ConfigError(f"batches of {batch_size} cannot hold as many of each of {classes} "
                          f"classes, as order {order!r} asks",
                          fix=f"pass batch_size={classes * per_class}")
    if order == "stored":
        return stored_order(classes, per_class)
    return class_rows(classes, per_class, chosen=min(classes, batch_size))


def predict(
    network: Network, variables: PyTree, images: PyTree, *, prepare: Callable, chunk: int | None
) -> jax.Array:
    """Predicted classes of a test set, chunk by chunk.

    Args:
      network, variables: the trained network.
      images: [N, H, W, C] as stored.
      prepare: stored images -> model space, applied per chunk.
      chunk: images per forward pass; None for the backend's default.

    Returns:
      [N] int32.
    """
    def classes(x):
        return jnp.argmax(network.apply(variables, prepare(x)).logits, axis=-1)

    return in_chunks(classes, images, size=chunk)
