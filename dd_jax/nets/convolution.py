"""Convolutions without bias, as networks with normalisation have them: 1x1, 3x3 and depthwise.

Strides are 1 or 2. On a CPU none of them is XLA's own, for the reasons given in `nets.conv`.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax import backend
from dd_jax.nets.conv import conv3x3
from dd_jax.nets.layers import initialisers

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def strided3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution of stride 2 with zero padding 1.

    Args:
      x: [B, H, W, Ci] float.
      kernel: [3, 3, Ci, Co] float.

    Returns:
      [B, ceil(H / 2), ceil(W / 2), Co].

    Example:
      >>> strided3x3(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
      [[4.0, 6.0], [6.0, 9.0]]
    """
    if not backend.on_cpu():
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)),
                                            dimension_numbers=_LAYOUT)
    # One matrix product over every second shift.
    rows = jnp.concatenate(_shifts(x, 2), axis=-1)
    return rows @ kernel.reshape(9 * x.shape[-1], -1)


def depthwise3x3(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """3x3 convolution of each channel with its own kernel, with zero padding 1.

    y[b, i, j, c] = sum_{d, e} x[b, s i + d - 1, s j + e - 1, c] k[d, e, c].

    Args:
      x: [B, H, W, C] float.
      kernel: [3, 3, C] float.
      stride: s, 1 or 2.

    Returns:
      [B, ceil(H / s), ceil(W / s), C].

    Example:
      >>> depthwise3x3(jnp.ones((1, 3, 3, 2)), jnp.ones((3, 3, 2)))[0, 1, :, 0].tolist()
      [6.0, 9.0, 6.0]
    """
    if not backend.on_cpu():
        return jax.lax.conv_general_dilated(
            x, kernel[:, :, None], (stride, stride), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT,
            feature_group_count=x.shape[-1])
    # There is no product to be made of it: nine scaled shifts, which XLA adds up in one loop.
    weights = kernel.reshape(9, -1)
    return sum(shift * weight for shift, weight in zip(_shifts(x, stride), weights))


def _shifts(x: jax.Array, stride: int) -> list[jax.Array]:
    """The nine neighbours of every place, or of every second, zero outside; row after row."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [padded[:, i : i + height : stride, j : j + width : stride]
            for i in range(3) for j in range(3)]


class Convolution(nn.Module):
    """A convolution without bias: 3x3 or 1x1, of stride 1 or 2."""

    features: int
    size: int = 3
    stride: int = 1
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        init, _ = initialisers(self.init_style, self.size**2 * channels)
        kernel = self.param("kernel", init, (self.size, self.size, channels, self.features))
        if self.size == 1:
            return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
        return conv3x3(x, kernel) if self.stride == 1 else strided3x3(x, kernel)


class Depthwise(nn.Module):
    """A 3x3 convolution of each channel by itself, without bias, of stride 1 or 2."""

    stride: int = 1
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Every output looks at one input channel, as the last axis but one says.
        init, _ = initialisers(self.init_style, 9)
        kernel = self.param("kernel", init, (3, 3, 1, x.shape[-1]))
        return depthwise3x3(x, kernel[:, :, 0], stride=self.stride)
