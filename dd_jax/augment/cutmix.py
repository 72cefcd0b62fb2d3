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
    draw = draw_cutmix(key, images.shape[0], images.shape[1:], probability=probability)
    return apply_cutmix(draw, images, labels)


def draw_cutmix(
    key: jax.Array, batch: int, shape: tuple[int, int, int], *, probability: float
) -> dict[str, jax.Array]:
    """What `cutmix` draws for a batch of so many images of shape (H, W, C).

    Returns:
      "partner" [B] int32, a permutation; "top", "bottom", "left" and "right" [] int32, the
      rectangle from its first row and column to those after its last, empty where nothing is
      mixed.

    Example:
      >>> draw_cutmix(jax.random.key(0), 2, (4, 4, 1), probability=0.0)["bottom"].item()
      0
    """
    use_key, area_key, row_key, col_key, pair_key = jax.random.split(key, 5)
    height, width, _ = shape
    side = jnp.sqrt(jax.random.uniform(area_key, ()))
    used = jax.random.uniform(use_key, ()) < probability

    def ends(axis_key, length):
        """The rectangle along one axis."""
        half = jnp.floor(side * length).astype(jnp.int32) // 2
        centre = jax.random.randint(axis_key, (), 0, length)
        return (jnp.where(used, jnp.maximum(centre - half, 0), 0),
                jnp.where(used, jnp.minimum(centre + half, length), 0))

    (top, bottom), (left, right) = ends(row_key, height), ends(col_key, width)
    return {"partner": jax.random.permutation(pair_key, batch), "top": top, "bottom": bottom,
            "left": left, "right": right}


def apply_cutmix(
    draw: dict[str, jax.Array], images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes images [B, H, W, C] and labels [B, K] as was drawn.

    Example:
      >>> draw = {"partner": jnp.array([1, 0]), "top": 0, "bottom": 1, "left": 0, "right": 2}
      >>> x = jnp.stack([jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))])
      >>> apply_cutmix(draw, x, jnp.eye(2))[1].tolist()
      [[0.5, 0.5], [0.5, 0.5]]
    """
    def inside(length, first, last):
        place = jnp.arange(length)
        return (place >= draw[first]) & (place < draw[last])

    cut = (inside(images.shape[1], "top", "bottom")[:, None]
           & inside(images.shape[2], "left", "right")[None, :])
    share = jnp.mean(cut.astype(labels.dtype))
    partner = draw["partner"]
    images = jnp.where(cut[None, :, :, None], images[partner], images)
    return images, (1 - share) * labels + share * labels[partner]
