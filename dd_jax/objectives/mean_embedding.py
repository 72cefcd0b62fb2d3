"""The mean features of each class's synthetic images meet those of its real images.

  L = sum_c || mean_{x in B_c} f(A_c(x)) - mean_{s in S_c} f(A_c(s)) ||^2

f are the flattened features of a network from a pool, A_c one random augmentation of class c that
real and synthetic images share.

Source: Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.augment import identity
from dd_jax.backend import in_chunks, map_over
from dd_jax.data import rows_per_class
from dd_jax.types import Augmentation, Batch, Network, Objective, Pool, RealData, SyntheticSet


def mean_embedding(
    network: Network,
    pool: Pool,
    *,
    batch_size: int = 256,
    augmentation: Augmentation | None = None,
    classes: str = "auto",
    chunk: int | None = None,
) -> Objective:
    """DM's objective: squared distance of class means of features, see the module.

    Args:
      network: the architecture. With batch normalisation all classes go through it together in
        training mode, as in the official code; otherwise class by class.
      pool: where the network of each step comes from (fresh, in DM).
      batch_size: real images per class and step.
      augmentation: drawn once per class and step, shared by real and synthetic images.
      classes: "map", "vmap" or "auto": one class after another, or all at once.
      chunk: images per forward pass; None for the backend's default.

    Returns:
      An `Objective` over `Batch(images [K, batch_size, H, W, C], labels [K, batch_size])`.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = mean_embedding(network, pools.fresh_pool(network), batch_size=16)
    """
    augmentation = augmentation or identity()

    def class_means(variables, images, keys):
        """images [K, n, H, W, C] -> mean features [K, P]."""
        if "batch_stats" in variables:
            return joint_means(variables, images, keys)

        def one_class(args):
            pixels, key = args
            params = augmentation.draw(key, 1)

            def embed(x):
                return network.apply(variables, augmentation.apply(params, x)).features

            return jnp.mean(in_chunks(embed, pixels, size=chunk), axis=0)

        return map_over(one_class, (images, keys), how=classes)

    def joint_means(variables, images, keys):
        def augment(args):
            pixels, key = args
            return augmentation.apply(augmentation.draw(key, 1), pixels)

        augmented = map_over(augment, (images, keys), how=classes)
        flat = augmented.reshape(-1, *images.shape[2:])
        features = network.apply(variables, flat, True).features
        return jnp.mean(features.reshape(*images.shape[:2], -1), axis=1)

    def init(key: jax.Array, synthetic: SyntheticSet):
        return pool.init(key, synthetic)

    def sample(data: RealData, state, key: jax.Array) -> jax.Array:
        return rows_per_class(data, key, batch_size)

    def loss(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        num_classes = batch.images.shape[0]
        draw_key, augment_key = jax.random.split(key)
        variables = jax.lax.stop_gradient(pool.draw(state, draw_key))
        keys = jax.random.split(augment_key, num_classes)
        real = jax.lax.stop_gradient(class_means(variables, batch.images, keys))
        per_class = synthetic.images.reshape(num_classes, -1, *synthetic.images.shape[1:])
        distances = jnp.sum((real - class_means(variables, per_class, keys)) ** 2, axis=-1)
        return jnp.sum(distances), {"largest_class_distance": jnp.max(distances)}

    def advance(synthetic: SyntheticSet, state, batch: Batch, key: jax.Array):
        return pool.advance(state, synthetic, key)

    def embed(state, images: jax.Array, key: jax.Array) -> jax.Array:
        variables = pool.draw(state, key)
        embedded = in_chunks(lambda x: network.apply(variables, x).features, images, size=chunk)
        return jax.lax.stop_gradient(embedded)

    return Objective(init=init, sample=sample, loss=loss, advance=advance, embed=embed)
