"""What a fixed network sees of each class of real images, in the size of a distilled set.

For each class c: the barycentre of its features, and for every batch normalisation the mean and
the biased variance of its input, averaged over batches of the class by their sizes.

Source: Liu et al., Dataset Distillation via the Wasserstein Metric, ICCV 2025.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.data import Normaliser, gather, normalise, require_on_device
from dd_jax.errors import ConfigError, require_whole
from dd_jax.solvers.barycentre import barycentre
from dd_jax.types import Network, PyTree, RealData


class ClassTargets(NamedTuple):
    """The result of `class_targets`.

    Attributes:
      points: [K, k, P], the barycentre of each class's features.
      statistics: ((means [K, c], variances [K, c]), ...), one pair for each batch normalisation.
    """

    points: jax.Array
    statistics: tuple[tuple[jax.Array, jax.Array], ...]


def class_targets(
    network: Network,
    variables: PyTree,
    data: RealData,
    count: int,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    batch_size: int = 100,
    learn_weights: bool = False,
) -> ClassTargets:
    """Goes through all real images once, class by class, with the memory of one class's features.

    It can be traced (`jax.jit`, `jax.eval_shape`). The last batch of a class is filled up with
    images of the one before it, or, in a class smaller than a batch, with the same images again;
    for the statistics only, where it weighs as much as it has new images.

    Args:
      network: the architecture, with `norm_inputs`.
      variables: of the fixed network, used in evaluation mode.
      data: the real set on the device, without empty classes.
      count: k, points of each class.
      normaliser: from stored images to model space.
      key: PRNG key of the barycentres.
      batch_size: images per forward pass, and per batch of the statistics.
      learn_weights: see `solvers.barycentre`.

    Returns:
      `ClassTargets`.

    Raises:
      ConfigError: a size that cannot be, a network without `norm_inputs`, images on the host.

    Example:
      >>> import numpy as np
      >>> from dd_jax import data, nets
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> network = nets.convnet(real.spec, depth=1, width=4, norm="batch")
      >>> found = class_targets(network, network.init(jax.random.key(0)), real, 2,
      ...                       normaliser=data.standardise(real), key=jax.random.key(1))
      >>> found.points.shape, found.statistics[0][0].shape
      ((2, 2, 144), (2, 4))
    """
    _check(network, data, count, batch_size)
    longest = data.class_rows.shape[1]
    batch_size = min(batch_size, longest)

    def one_class(variables, data, normaliser, args):
        rows, size, key = args

        def one_batch(first):
            place = jnp.maximum(jnp.minimum(first, size - batch_size), 0) + jnp.arange(batch_size)
            images = normalise(normaliser, gather(data, rows[place % size])[0])
            outputs, found = network.norm_inputs(variables, images)
            return outputs.features, found, (place >= first) & (place < size)

        firsts = jnp.arange(0, longest, batch_size)
        features, found, new = jax.lax.map(one_batch, firsts)
        shares = jnp.sum(new, axis=1) / size
        statistics = jax.tree.map(lambda x: jnp.sum(shares[:, None] * x, axis=0), found)
        middle = barycentre(features.reshape(-1, features.shape[-1]), count, key=key,
                            valid=new.reshape(-1), learn_weights=learn_weights)
        return ClassTargets(middle.points, statistics)

    @jax.jit
    def run(variables, data, normaliser, key):
        keys = jax.random.split(key, data.spec.num_classes)
        return jax.lax.map(lambda args: one_class(variables, data, normaliser, args),
                           (data.class_rows, data.class_counts, keys))

    return run(variables, data, normaliser, key)


def _check(network: Network, data: RealData, count: int, batch_size: int) -> None:
    require_whole("count", count, example=10)
    require_whole("batch_size", batch_size, example=100)
    if network.norm_inputs is None:
        raise ConfigError(f"the network {network.name!r} has no norm_inputs",
                          fix="build it with nets.from_linen, or give it that function")
    require_on_device(data, "a teacher")
