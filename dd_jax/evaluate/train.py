"""Training of one fresh network as a pure function: a loop of epochs around a loop of steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import chunk_size, in_chunks
from dd_jax.evaluate.protocol import Protocol, directions, rate_schedule
from dd_jax.nets import with_batch_stats
from dd_jax.types import Augmentation, Network, PyTree

_INIT, _EPOCH, _AUGMENT = range(3)


def weighted_loss(name: str, logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """The training loss of a batch, summed with weights that leave out padding rows.

    "cross_entropy" takes probabilities as labels; "squared_error" is half the squared distance
    summed over classes, "mean_squared_error" the squared distance averaged over classes.
    """
    if name == "cross_entropy":
        each = optax.losses.softmax_cross_entropy(logits, labels)
    elif name == "mean_squared_error":
        each = jnp.mean((logits - labels) ** 2, axis=-1)
    else:
        each = 0.5 * jnp.sum((logits - labels) ** 2, axis=-1)
    return jnp.sum(weights * each)


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
    batch_size = min(batch_size, size)
    per_epoch = -(-size // batch_size)
    # The official loop runs E + 1 epochs, numbered from 0, and drops after epoch E // 2 + 1.
    drop_epoch = (epochs - 1) // 2 + 2
    optimizer = directions(protocol)
    rate = rate_schedule(protocol, epochs * per_epoch, drop_epoch * per_epoch)
    variables = network.init(jax.random.fold_in(key, _INIT))
    initial = variables["params"]

    # Batch statistics need the whole batch at once; otherwise gradients add up over chunks.
    chunk = batch_size if "batch_stats" in variables else chunk_size(batch_size)
    chunks = -(-batch_size // chunk)

    def objective(params, variables, rows, weights, draw):
        images, labels = take(rows)
        images = augmentation.apply(draw, images)
        outputs = network.apply({**variables, "params": params}, images, True)
        return weighted_loss(loss, outputs.logits, labels, weights), outputs

    def gradient(variables, rows, weights, draw):
        fn = jax.grad(objective, has_aux=True)
        if chunks == 1:
            grads, outputs = fn(variables["params"], variables, rows, weights, draw)
            return grads, with_batch_stats(variables, outputs)

        def add(total, part):
            grads, _ = fn(variables["params"], variables, *part)
            return jax.tree.map(jnp.add, total, grads), None

        parts = (rows, weights, draw)
        parts = jax.tree.map(lambda x: x.reshape(chunks, chunk, *x.shape[1:]), parts)
        zeros = jax.tree.map(jnp.zeros_like, variables["params"])
        return jax.lax.scan(add, zeros, parts)[0], variables

    def step(i, carry):
        variables, opt_state, order, epoch = carry
        number = epoch * per_epoch + i
        place = jnp.arange(chunks * chunk)
        position = i * batch_size + place
        weights = ((place < batch_size) & (position < size)).astype(jnp.float32)
        draw_key = jax.random.fold_in(jax.random.fold_in(key, _AUGMENT), number)
        draw = augmentation.draw(draw_key, chunks * chunk)
        grads, variables = gradient(variables, order[position % size], weights, draw)
        grads = jax.tree.map(lambda g: g / jnp.sum(weights), grads)
        if protocol.pull:
            grads = jax.tree.map(lambda g, p, p0: g + 2 * protocol.pull * (p - p0), grads,
                                 variables["params"], initial)
        updates, opt_state = optimizer.update(grads, opt_state, variables["params"])
        scale = -rate(number)
        params = jax.tree.map(lambda p, u: p + scale * u, variables["params"], updates)
        return {**variables, "params": params}, opt_state, order, epoch

    def one_epoch(epoch, carry):
        variables, opt_state = carry
        if protocol.schedule == "step_drop":
            fresh = optimizer.init(variables["params"])
            opt_state = jax.tree.map(
                lambda new, old: jnp.where(epoch == drop_epoch, new, old), fresh, opt_state
            )
        epoch_key = jax.random.fold_in(jax.random.fold_in(key, _EPOCH), epoch)
        order = jax.random.permutation(epoch_key, size).astype(jnp.int32)
        variables, opt_state, _, _ = jax.lax.fori_loop(
            0, per_epoch, step, (variables, opt_state, order, epoch)
        )
        return variables, opt_state

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
