"""Mixup: every image is blended with another of its batch, and so is its label.

Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


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
    use_key, share_key, pair_key = jax.random.split(key, 3)
    share = jax.random.beta(share_key, alpha, alpha, dtype=images.dtype)
    share = jnp.where(jax.random.uniform(use_key, ()) < probability, share, 0)
    partner = jax.random.permutation(pair_key, images.shape[0])
    images = (1 - share) * images + share * images[partner]
    return images, (1 - share) * labels + share * labels[partner]
