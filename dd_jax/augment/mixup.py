"""Mixup: every image is blended with another of its batch, and so is its label.

Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.augment.mixing import apply_mixup, draw_mixup


def mixup(
    images: jax.Array, labels: jax.Array, key: jax.Array, *, probability: float = 1.0,
    alpha: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Blends a batch, with one coefficient and one pairing for all of it.

    With a of Beta(alpha, alpha) and a permutation p: x_i <- (1 - a) x_i + a x_p(i), labels alike.

    Args:
      images: [B, H, W, C].
      labels: [B, K].
      key: PRNG key.
      probability: that the batch is blended at all.
      alpha: above 0; 1 is a uniform coefficient.

    Returns:
      (images, labels) of the same shapes.

    Example:
      >>> x = jnp.stack([jnp.zeros((4, 4, 1)), jnp.ones((4, 4, 1))])
      >>> mixed, labels = mixup(x, jnp.eye(2), jax.random.key(1))
      >>> bool(jnp.allclose(mixed.mean((1, 2, 3)), labels[:, 1]))  # the share of ones
      True
    """
    use_key, draw_key = jax.random.split(key)
    draw = draw_mixup(draw_key, images.shape[0], alpha=alpha)
    share = jnp.where(jax.random.uniform(use_key, ()) < probability, draw["share"], 0)
    return apply_mixup({**draw, "share": share.astype(images.dtype)}, images, labels)
