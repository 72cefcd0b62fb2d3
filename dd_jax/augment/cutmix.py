"""CutMix: a rectangle of every image comes from another image of the batch, and so does a share of
its label.

Source: Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers, ICCV 2019.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cutmix(
    images: jax.Array, labels: jax.Array, key: jax.Array, *, probability: float = 0.5
) -> tuple[jax.Array, jax.Array]:
    """Cuts and mixes a batch, with one rectangle and one pairing for all of it.

    u is uniform in 0..1; the rectangle reaches floor(sqrt(u) N) // 2 pixels to both sides of a
    uniform centre and is clipped at the border. Labels are weighted by the areas, so that
    cross-entropy with the mixed label is the weighted sum of the two cross-entropies.

    Args:
      images: [B, H, W, C].
      labels: [B, K].
      key: PRNG key.
      probability: that the batch is mixed at all.

    Returns:
      (images, labels) of the same shapes.

    Example:
      >>> x = jnp.stack([jnp.zeros((4, 4, 1)), jnp.ones((4, 4, 1))])
      >>> mixed, labels = cutmix(x, jnp.eye(2), jax.random.key(1), probability=1.0)
      >>> bool(jnp.allclose(mixed.mean((1, 2, 3)), labels[:, 1]))  # the share of ones
      True
    """
    use_key, area_key, row_key, col_key, pair_key = jax.random.split(key, 5)
    batch, height, width, _ = images.shape
    side = jnp.sqrt(jax.random.uniform(area_key, ()))

    def inside(axis_key, length):
        """[length] bool: the rectangle along one axis."""
        half = jnp.floor(side * length).astype(jnp.int32) // 2
        centre = jax.random.randint(axis_key, (), 0, length)
        place = jnp.arange(length)
        return (place >= centre - half) & (place < centre + half)

    cut = inside(row_key, height)[:, None] & inside(col_key, width)[None, :]
    cut = cut & (jax.random.uniform(use_key, ()) < probability)
    share = jnp.mean(cut.astype(labels.dtype))
    partner = jax.random.permutation(pair_key, batch)
    images = jnp.where(cut[None, :, :, None], images[partner], images)
    return images, (1 - share) * labels + share * labels[partner]
