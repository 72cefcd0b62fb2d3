"""Training of one fresh network by a protocol, as a pure function."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError
from dd_jax.evaluate.protocol import Protocol, directions, drop_epoch, rate_schedule
from dd_jax.train.plans import Plan, class_rows, stored_order
from dd_jax.train.supervised import batch_gradient, train_epoch
from dd_jax.types import Augmentation, Network, PyTree

_INIT, _EPOCH, _PLAN = range(3)


def train(
    network: Network,
    protocol: Protocol,
    *,
    size: int,
    take: Callable[[jax.Array], tuple[jax.Array, jax.Array]],
    augmentation: Augmentation,
    loss: str,
    epochs: int,
    batch_size: int,
    key: jax.Array,
) -> PyTree:
    """Trains a fresh network on a set of `size` images.

    Every epoch is a new permutation; a partial last batch is padded with rows of weight zero (which
    batch normalisation still sees in its statistics). A protocol of another order has a plan of all
    steps instead, see `train.plans`.

    Args:
      network: the architecture.
      protocol: optimiser and schedule.
      size: M, number of images.
      take: rows [b] int32 -> (images [b, H, W, C] float32 in model space, labels [b, K]).
      augmentation: applied to every batch, one draw per image.
      loss: one that `weighted_loss` knows.
      epochs, batch_size: of this run.
      key: PRNG key.

    Returns:
      The trained variables.
    """
    per_epoch = -(-size // min(batch_size, size))
    optimizer = directions(protocol)
    rate = rate_schedule(protocol, epochs, per_epoch)
    seed = protocol.start_seed
    variables = network.init(
        jax.random.fold_in(key, _INIT) if seed is None else jax.random.key(seed))
    initial = variables["params"]
    epoch_key = jax.random.fold_in(key, _EPOCH)

    def update(grads, opt_state, params, step):
        if protocol.pull:
            grads = jax.tree.map(lambda g, p, p0: g + 2 * protocol.pull * (p - p0), grads,
                                 params, initial)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        scale = -rate(step)
        return jax.tree.map(lambda p, u: p + scale * u, params, updates), opt_state

    def one_epoch(epoch, carry):
        variables, opt_state = carry
        if protocol.schedule == "step_drop":
            fresh = optimizer.init(variables["params"])
            opt_state = jax.tree.map(
                lambda new, old: jnp.where(epoch == drop_epoch(epochs), new, old), fresh, opt_state
            )
        return train_epoch(
            network, variables, opt_state, jax.random.fold_in(epoch_key, epoch), size=size,
            take=take, loss=loss, batch_size=batch_size, augmentation=augmentation,
            update=lambda *args: update(*args[:-1], epoch * per_epoch + args[-1]),
            mix=protocol.cutmix,
        )

    start = (variables, optimizer.init(variables["params"]))
    if protocol.order == "random":
        return jax.lax.fori_loop(0, epochs, one_epoch, start)[0]
    classes = jax.eval_shape(take, jnp.zeros((1,), jnp.int32))[1].shape[-1]
    plan_key, steps = jax.random.fold_in(key, _PLAN), epochs * per_epoch
    rows = _plan(protocol.order, classes, min(batch_size, size))(plan_key, size, steps)

    def one_step(i, carry):
        variables, opt_state = carry
        images, labels = take(jnp.arange(size) if rows is None else rows[i])
        draw = augmentation.draw(jax.random.fold_in(epoch_key, i), images.shape[0])
        grads, variables = batch_gradient(network, variables, augmentation.apply(draw, images),
                                          labels, loss=loss, train=True)
        params, opt_state = update(grads, opt_state, variables["params"], i)
        return {**variables, "params": params}, opt_state

    return jax.lax.fori_loop(0, steps, one_step, start)[0]


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
