"""The 3x3 convolution in three equal formulations, chosen by backend.

XLA's CPU backend turns the weight gradient of a convolution, and every vmapped convolution, into
slow loops, while its matrix products are close to the machine's peak. So on a CPU a convolution is
written with slices, additions and one matrix product. Slices transpose to pads and products to
products: first and second derivatives, forward or reverse, stay what they were and never scatter,
so no custom derivative rule is needed.

  native    `lax.conv_general_dilated`; the right choice on GPU and TPU.
  patches   the nine shifted copies side by side, then one product [B*H*W, 9*Ci] x [9*Ci, Co].
  winograd  F(2x2, 3x3): sixteen products of a quarter of the positions, 2.25 times fewer
            multiplications; for wide layers. Exact in exact arithmetic, float32 error about 1e-6.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax import backend
from dd_jax.errors import unknown

_WINOGRAD_MIN_CHANNELS = 32


def native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution by XLA's own operator; see `conv3x3`."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution as one matrix product over concatenated shifts; see `conv3x3`."""
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    rows = jnp.concatenate(shifts, axis=-1).reshape(-1, 9 * channels)
    return (rows @ kernel.reshape(9 * channels, -1)).reshape(batch, height, width, -1)


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution by Winograd's F(2x2, 3x3) for even H and W; see `conv3x3`."""
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # A 4x4 input tile is made of the even and odd rows and columns, here and one further.
    halves = padded.reshape(batch, h + 1, 2, w + 1, 2, channels)

    def input_transform(v: list) -> list:
        return [v[0] - v[2], v[1] + v[2], v[2] - v[1], v[1] - v[3]]

    def kernel_transform(k) -> list:
        # A 3-tap kernel at the four points 0, 1, -1, infinity of the short convolution.
        ends, middle = 0.5 * (k[0] + k[2]), 0.5 * k[1]
        return [k[0], ends + middle, ends - middle, k[2]]

    def output_transform(m: list) -> list:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    rows = input_transform([halves[:, :h, 0], halves[:, :h, 1], halves[:, 1:, 0], halves[:, 1:, 1]])
    # As additions of [Ci, Co] slabs: products with a 4x3 matrix are slow, and every step of an
    # inner loop has other kernels.
    points = [kernel_transform(row) for row in kernel_transform(kernel)]
    products = []
    for i, row in enumerate(rows):
        columns = [row[:, :, :w, 0], row[:, :, :w, 1], row[:, :, 1:, 0], row[:, :, 1:, 1]]
        # Sixteen plain products: a batched one first copies its operands into a stack.
        products.append([tile.reshape(-1, channels) @ points[i][j]
                         for j, tile in enumerate(input_transform(columns))])
    columns = [output_transform([products[i][j] for i in range(4)]) for j in range(4)]
    y = [output_transform([columns[j][a] for j in range(4)]) for a in range(2)]
    y = jnp.stack([jnp.stack(pair, axis=1) for pair in y], axis=1)  # [B*h*w, 2, 2, Co]
    y = y.reshape(batch, h, w, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(batch, height, width, -1)


_FORMULATIONS = {"native": native, "patches": patches, "winograd": winograd}
FORMULATIONS = ("auto", *_FORMULATIONS)


def _choose(x: jax.Array, kernel: jax.Array) -> str:
    if not backend.on_cpu():
        return "native"
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    return "winograd" if even and x.shape[3] >= _WINOGRAD_MIN_CHANNELS else "patches"


def conv3x3(x: jax.Array, kernel: jax.Array, *, formulation: str = "auto") -> jax.Array:
    """A 3x3 convolution of stride 1 with zero padding 1 (cross-correlation, no flip).

    y[b, i, j, o] = sum_{d, e, c} x[b, i + d - 1, j + e - 1, c] k[d, e, c, o].

    Args:
      x: [B, H, W, Ci] float.
      kernel: [3, 3, Ci, Co] float.
      formulation: "auto" (by backend and shape), "native", "patches" or "winograd"; equal to
        float rounding in value and in every derivative.

    Returns:
      [B, H, W, Co].

    Raises:
      ConfigError: unknown formulation. ("winograd" on an odd size computes by "patches".)

    Example:
      >>> import jax.numpy as jnp
      >>> conv3x3(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)))[0, 1, 1, 0].item()
      9.0
    """
    if formulation not in FORMULATIONS:
        raise unknown("convolution formulation", formulation, FORMULATIONS)
    if formulation == "auto":
        formulation = _choose(x, kernel)
    if formulation == "winograd" and (x.shape[1] % 2 or x.shape[2] % 2):
        formulation = "patches"
    return _FORMULATIONS[formulation](x, kernel)
