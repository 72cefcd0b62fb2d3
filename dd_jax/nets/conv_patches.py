"""Convolutions of any kernel size and stride 1, as one matrix product on a CPU.

The reasons are those of `nets.conv`, whose 3x3 convolution has faster forms and stays the one to
use for that size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax import backend


def conv(x: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """A k x l convolution of stride 1 with zero padding (cross-correlation, no flip).

    y[b, i, j, o] = sum_{d, e, c} x[b, i + d - padding, j + e - padding, c] kernel[d, e, c, o].

    Args:
      x: [B, H, W, Ci] float.
      kernel: [k, l, Ci, Co] float.
      padding: zeros on each of the four sides.

    Returns:
      [B, H + 2 padding - k + 1, W + 2 padding - l + 1, Co].

    Example:
      >>> conv(jnp.ones((1, 4, 4, 1)), jnp.ones((5, 5, 1, 1)), padding=2)[0, 0, :, 0].tolist()
      [9.0, 12.0, 12.0, 9.0]
    """
    around = (padding, padding)
    if not backend.on_cpu():
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), (around, around),
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))
    tall, wide, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), around, around, (0, 0)))
    height, width = x.shape[1] - tall + 1, x.shape[2] - wide + 1
    shifts = [x[:, i : i + height, j : j + width] for i in range(tall) for j in range(wide)]
    rows = jnp.concatenate(shifts, axis=-1).reshape(-1, tall * wide * channels)
    products = rows @ kernel.reshape(tall * wide * channels, features)
    return products.reshape(x.shape[0], height, width, features)
