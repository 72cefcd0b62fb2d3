"""The gradient of a batch in a network's parameters, which every training has in common."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import chunk_size
from dd_jax.nets import with_batch_stats
from dd_jax.train.losses import Loss, cross_entropy
from dd_jax.types import Network, PyTree


def batch_gradient(
    network: Network,
    variables: PyTree,
    images: jax.Array,
    targets: PyTree,
    **options,
) -> tuple[PyTree, PyTree]:
    """Gradient of the mean loss of a batch in the network's parameters; differentiable in images.

    On a CPU it adds up over chunks of about 16 images, whose activations stay in the cache, unless
    the layers or the loss look at the whole batch.

    Args:
      network: the architecture.
      variables: its variables.
      images: [B, H, W, C] float32 in model space.
      targets: [B, K] float32, or what else the loss takes, [B, ...].
      **options: loss, weights, train, rematerialise and chunk, as for `measured_gradient`.

    Returns:
      (gradient like variables["params"], variables with new running statistics).

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> variables = network.init(jax.random.key(0))
      >>> gradient, _ = batch_gradient(network, variables, jnp.ones((3, 2, 2, 1)), jnp.eye(3, 2))
      >>> gradient["head"]["kernel"].shape
      (4, 2)
    """
    return measured_gradient(network, variables, images, targets, **options)[:2]


def measured_gradient(
    network: Network,
    variables: PyTree,
    images: jax.Array,
    targets: PyTree,
    *,
    loss: Loss = cross_entropy,
    weights: jax.Array | None = None,
    train: bool = False,
    rematerialise: bool = False,
    measure: Callable[[jax.Array, PyTree], jax.Array] | None = None,
    chunk: int | None = None,
) -> tuple[PyTree, PyTree, jax.Array]:
    """What `batch_gradient` gives, and the sum of something else over the batch.

    Args:
      network, variables, images, targets: as there.
      loss: (logits [B, K], targets) -> [B]; the mean is sum w loss / sum w. One whose `of` is
        "outputs" takes the network's `Outputs` in place of the logits; one that is `whole`
        compares rows, so that the batch is not cut: rows of weight 0 are compared with, too.
      weights: [B] w, 0 for rows that do not count; all 1 by default.
      train: whether batch normalisation takes, and updates by, the statistics of this batch.
      rematerialise: whether to differentiate the gradient with the memory of one chunk, which is
        run once more for it.
      measure: (logits, targets) -> [B], without derivative; see `right`.
      chunk: images at a time; None for the backend's default.

    Returns:
      (gradient, variables, [] sum of w measure, 0 without one).
    """
    total = images.shape[0]
    weights = jnp.ones((total,), images.dtype) if weights is None else weights
    whole = getattr(loss, "whole", False) or (train and "batch_stats" in variables)
    of_outputs = getattr(loss, "of", "logits") == "outputs"
    chunk = total if whole else min(chunk or chunk_size(total), total)
    chunks = -(-total // chunk)

    def objective(params, images, targets, weights):
        outputs = network.apply({**variables, "params": params}, images, train)
        told = jnp.zeros(()) if measure is None else measure(outputs.logits, targets)
        seen = outputs if of_outputs else outputs.logits
        summed = jnp.sum(weights * loss(seen, targets))
        return summed, (jnp.sum(weights * told).astype(weights.dtype), outputs)

    gradient = jax.grad(objective, has_aux=True)
    params, parts = variables["params"], (images, targets, weights)
    if chunks == 1:
        grads, (measured, outputs) = gradient(params, *parts)
        variables = with_batch_stats(variables, outputs) if train else variables
    else:
        def of_chunk(params, part):
            grads, (measured, _) = gradient(params, *part)
            return grads, measured

        if rematerialise:
            of_chunk = jax.checkpoint(of_chunk, prevent_cse=False)  # in the body of a scan

        def add(carry, part):
            return jax.tree.map(jnp.add, carry, of_chunk(params, part)), None

        zeros = (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), weights.dtype))
        pieces = jax.tree.map(lambda x: _cut(x, chunks, chunk), parts)
        grads, measured = jax.lax.scan(add, zeros, pieces)[0]
    count = jnp.sum(weights)
    count = jnp.where(count > 0, count, 1.0)
    return jax.tree.map(lambda g: g / count, grads), variables, measured


def right(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """[B] 1 where the largest logit is that of the largest target, else 0."""
    return (jnp.argmax(logits, axis=-1) == jnp.argmax(targets, axis=-1)).astype(logits.dtype)


def _cut(x: jax.Array, chunks: int, chunk: int) -> jax.Array:
    """[B, ...] -> [chunks, chunk, ...], the last one filled up with zeros."""
    x = jnp.pad(x, ((0, chunks * chunk - x.shape[0]), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(chunks, chunk, *x.shape[1:])
