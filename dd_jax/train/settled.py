"""Running statistics that are averages over batches, for a network that is no longer trained."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.data import Normaliser, gather, normalise, rows_uniform
from dd_jax.types import Augmentation, Network, PyTree, RealData

_BATCHES = 50


def settled(
    network: Network,
    variables: PyTree,
    data: RealData,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    batch_size: int,
    augmentation: Augmentation,
) -> PyTree:
    """The variables with running statistics that are means over 50 batches, not the last ones.

    The library's batch normalisation forgets faster than the usual one, so after a training its
    running statistics are those of very few batches.

    Args:
      network, variables: the trained network, with batch normalisation.
      data: the real set, on the device.
      normaliser: from stored images to model space.
      key: PRNG key of the batches.
      batch_size: images per batch.
      augmentation: of the training.
    """
    batch_size = min(batch_size, data.labels.shape[0])

    @jax.jit
    def run(variables, data, normaliser, key):
        def step(stats, key):
            rows_key, augment_key = jax.random.split(key)
            rows = rows_uniform(data, rows_key, batch_size)
            images = normalise(normaliser, gather(data, rows)[0])
            images = augmentation.apply(augmentation.draw(augment_key, batch_size), images)
            stats = network.apply({**variables, "batch_stats": stats}, images, True).batch_stats
            return stats, stats

        keys = jax.random.split(key, _BATCHES)
        each = jax.lax.scan(step, variables["batch_stats"], keys)[1]
        return {**variables, "batch_stats": jax.tree.map(lambda x: jnp.mean(x, axis=0), each)}

    return run(variables, data, normaliser, key)
