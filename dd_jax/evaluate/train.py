"""Training of one fresh network by a protocol, as a pure function."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.evaluate.protocol import Protocol, directions, drop_epoch, rate_schedule
from dd_jax.inner.supervised import train_epoch
from dd_jax.types import Augmentation, Network, PyTree

_INIT, _EPOCH = range(2)


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
    batch normalisation still sees in its statistics).

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
    variables = network.init(jax.random.fold_in(key, _INIT))
    initial = variables["params"]
    epoch_key = jax.random.fold_in(key, _EPOCH)

    def one_epoch(epoch, carry):
        variables, opt_state = carry
        if protocol.schedule == "step_drop":
            fresh = optimizer.init(variables["params"])
            opt_state = jax.tree.map(
                lambda new, old: jnp.where(epoch == drop_epoch(epochs), new, old), fresh, opt_state
            )

        def update(grads, opt_state, params, i):
            if protocol.pull:
                grads = jax.tree.map(lambda g, p, p0: g + 2 * protocol.pull * (p - p0), grads,
                                     params, initial)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            scale = -rate(epoch * per_epoch + i)
            return jax.tree.map(lambda p, u: p + scale * u, params, updates), opt_state

        return train_epoch(
            network, variables, opt_state, jax.random.fold_in(epoch_key, epoch), size=size,
            take=take, update=update, loss=loss, batch_size=batch_size, augmentation=augmentation,
            mix=protocol.cutmix,
        )

    start = (variables, optimizer.init(variables["params"]))
    return jax.lax.fori_loop(0, epochs, one_epoch, start)[0]


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
