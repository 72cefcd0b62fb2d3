"""Random real images for a budget, the baseline of every set."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dd_jax.data import gather, real_rows
from dd_jax.types import RealData

_SHARE = 1


def random_images(data: RealData, key: jax.Array, ipc: float) -> tuple[jax.Array, jax.Array]:
    """Distinct real images, class-major: `ipc` of each class.

    Of a fraction, the whole images that it makes for all classes together are shared out: some
    classes, drawn by the key, have one more than others, or one where others have none.

    Args:
      data: the real set.
      key: PRNG key.
      ipc: images per class, above 0; one image at least is given.

    Returns:
      (images [M, H, W, C] as stored, classes [M] int32), M = floor(ipc K).

    Example:
      >>> from dd_jax.data import load_embedded
      >>> random_images(load_embedded().train, jax.random.key(0), 0.3)[0].shape
      (3, 28, 28, 1)
    """
    classes, most = data.spec.num_classes, math.ceil(ipc)
    rows = real_rows(data, key, most)
    total = max(1, math.floor(round(ipc * classes, 6)))
    if total < most * classes:
        turn = jax.random.permutation(jax.random.fold_in(key, _SHARE), classes)
        turns = jnp.arange(most) * classes + turn[:, None]  # everybody's first, everybody's second
        rows = rows[jnp.sort(jnp.argsort(turns.reshape(-1))[:total])]
    return gather(data, rows)
