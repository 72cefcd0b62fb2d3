"""Mixup: every image and its label are averaged with another image of the batch and its label.

Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def draw_mixup(key: jax.Array, batch: int, *, alpha: float) -> dict[str, jax.Array]:
    """One pairing and one weight for a batch.

    Args:
      key: PRNG key.
      batch: B.
      alpha: of the symmetric Beta distribution of the weight; above 0.

    Returns:
      "partner" [B] int32, a permutation, and "share" [] float32, the weight of the partners.

    Example:
      >>> draw_mixup(jax.random.key(0), 3, alpha=0.8)["partner"].shape
      (3,)
    """
    share_key, pair_key = jax.random.split(key)
    return {"partner": jax.random.permutation(pair_key, batch),
            "share": jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)}


def apply_mixup(
    draw: dict[str, jax.Array], images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(1 - share) x + share x_partner, of images [B, H, W, C] and of labels [B, K].

    Example:
      >>> draw = {"partner": jnp.array([1, 0]), "share": jnp.float32(0.25)}
      >>> apply_mixup(draw, jnp.zeros((2, 1, 1, 1)), jnp.eye(2))[1].tolist()
      [[0.75, 0.25], [0.25, 0.75]]
    """
    share, partner = draw["share"], draw["partner"]
    return tuple((1 - share) * x + share * x[partner] for x in (images, labels))
