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
import numpy as np

from dd_jax import backend
from dd_jax.errors import unknown

# G maps a 3-tap kernel to the four points 0, 1, -1, infinity of the short convolution.
_KERNEL_TRANSFORM = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_WINOGRAD_MIN_CHANNELS = 64


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
    # The four phases of the even/odd grid: a 4x4 input tile is sixteen shifted views of them.
    phases = padded.reshape(batch, h + 1, 2, w + 1, 2, channels)

    def tile(r: int, s: int) -> jax.Array:
        return phases[:, r // 2 : r // 2 + h, r % 2, s // 2 : s // 2 + w, s % 2]

    def input_transform(v: list) -> list:
        return [v[0] - v[2], v[1] + v[2], v[2] - v[1], v[1] - v[3]]

    def output_transform(m: list) -> list:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    columns = [input_transform([tile(r, s) for r in range(4)]) for s in range(4)]
    points = [input_transform([columns[s][i] for s in range(4)]) for i in range(4)]
    v = jnp.stack([points[i][j].reshape(-1, channels) for i in range(4) for j in range(4)])
    g = jnp.asarray(_KERNEL_TRANSFORM, kernel.dtype)
    u = jnp.einsum("ia,jb,abco->ijco", g, g, kernel).reshape(16, channels, -1)
    m = jax.lax.dot_general(v, u, (((2,), (1,)), ((0,), (0,))))
    m = m.reshape(4, 4, batch, h, w, -1)
    columns = [output_transform([m[i, j] for i in range(4)]) for j in range(4)]
    y = [output_transform([columns[j][a] for j in range(4)]) for a in range(2)]
    y = jnp.stack([jnp.stack(y[0], axis=3), jnp.stack(y[1], axis=3)], axis=2)
    return y.reshape(batch, height, width, -1)


_FORMULATIONS = {"native": native, "patches": patches, "winograd": winograd}
FORMULATIONS = ("auto", *_FORMULATIONS)


def _choose(x: jax.Array, kernel: jax.Array) -> str:
    if not backend.on_cpu():
        return "native"
    even = x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0
    wide = min(kernel.shape[2:]) >= _WINOGRAD_MIN_CHANNELS
    # Winograd's sixteen small products only pay where there are enough tiles to fill them.
    large = x.shape[1] * x.shape[2] >= 144
    return "winograd" if even and wide and large else "patches"


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
