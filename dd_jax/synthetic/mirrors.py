"""The left-right mirror images of a synthetic set."""

from __future__ import annotations

import jax.numpy as jnp

from dd_jax.types import SyntheticSet


def with_mirrors(synthetic: SyntheticSet) -> SyntheticSet:
    """Every image followed by its left-right mirror image with its label and weight: [2M, ...].

    Args:
      synthetic: images [M, H, W, C], labels [M, K] or [M], class-major.

    Returns:
      A class-major `SyntheticSet` of 2 M images.

    Example:
      >>> both = with_mirrors(SyntheticSet(jnp.arange(2.0).reshape(1, 1, 2, 1), jnp.ones((1, 2))))
      >>> both.images.reshape(2, 2).tolist()
      [[0.0, 1.0], [1.0, 0.0]]
    """
    images = jnp.stack([synthetic.images, synthetic.images[:, :, ::-1]], axis=1)
    weights = synthetic.weights
    return synthetic._replace(images=images.reshape(-1, *images.shape[2:]),
                              labels=jnp.repeat(synthetic.labels, 2, axis=0),
                              weights=None if weights is None else jnp.repeat(weights, 2))
