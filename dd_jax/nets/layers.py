"""Layers that Flax has not, or has in a form that is slow or initialised otherwise."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown
from dd_jax.nets.conv import conv3x3


def torch_uniform(fan_in: int) -> Callable:
    """Initialiser U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for weights and biases.

    Example:
      >>> import jax
      >>> abs(torch_uniform(4)(jax.random.key(0), (100,))).max() <= 0.5
      Array(True, dtype=bool)
    """
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


INIT_STYLES = ("torch", "lecun", "gaussian")


def initialisers(style: str, fan_in: int) -> tuple[Callable, Callable]:
    """The (kernel, bias) initialisers of a layer.

    "torch" is PyTorch's default, "lecun" Flax's; "gaussian" has weights N(0, 2 / fan_in) and biases
    N(0, 0.1^2), so that wide networks approach the kernels of `dd_jax.kernels`.

    Raises:
      ConfigError: unknown style.
    """
    if style not in INIT_STYLES:
        raise unknown("initialisation", style, INIT_STYLES)
    if style == "torch":
        return torch_uniform(fan_in), torch_uniform(fan_in)
    if style == "gaussian":
        return nn.initializers.normal((2.0 / fan_in) ** 0.5), nn.initializers.normal(0.1)
    return nn.initializers.lecun_normal(), nn.initializers.zeros_init()


class Conv3x3(nn.Module):
    """3x3 convolution with bias, stride 1, and `padding` zeros on each side (1 keeps the size)."""

    features: int
    padding: int = 1
    init_style: str = "torch"
    formulation: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel_init, bias_init = initialisers(self.init_style, 9 * channels)
        kernel = self.param("kernel", kernel_init, (3, 3, channels, self.features))
        bias = self.param("bias", bias_init, (self.features,))
        extra = self.padding - 1
        if extra:
            x = jnp.pad(x, ((0, 0), (extra, extra), (extra, extra), (0, 0)))
        return conv3x3(x, kernel, formulation=self.formulation) + bias


class InstanceNorm(nn.Module):
    """Per-image, per-channel standardisation with learned scale and shift, no running state.

    One pass: mean and mean of squares together; eps 1e-5 as in PyTorch.
    """

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        square = jnp.mean(x * x, axis=(1, 2), keepdims=True)
        # Rounding can make the difference slightly negative on constant maps.
        var = jnp.maximum(square - mean * mean, 0.0)
        factor = scale * jax.lax.rsqrt(var + self.eps)
        return x * factor + (bias - mean * factor)


NORMS = ("none", "batch", "instance", "group", "layer")


# The share of the old running statistics that a step of batch normalisation keeps: everybody's
# (momentum 0.1 in the words of PyTorch), and that of FRePo's own ConvNet.
KEPT, KEPT_BY_FREPO = 0.9, 0.1


def normalise_maps(
    x: jax.Array, norm: str, *, train: bool, name: str, kept: float = KEPT
) -> jax.Array:
    """Applies the named normalisation layer inside a compact module.

    Args:
      x: [B, h, w, c].
      norm: one of `NORMS`; "group" has four groups, "layer" one group of all channels.
      train: whether batch statistics come from this batch (and update the running ones).
      name: the layer's name in the variables.
      kept: of "batch", running = kept * running + (1 - kept) * batch.
    """
    if norm == "none":
        return x
    if norm == "instance":
        return InstanceNorm(name=name)(x)
    if norm == "batch":
        # What Flax calls momentum weighs the old value.
        layer = nn.BatchNorm(use_running_average=not train, momentum=kept, epsilon=1e-5, name=name)
        return layer(x)
    if norm in ("group", "layer"):
        groups = 4 if norm == "group" else 1
        return nn.GroupNorm(num_groups=groups, epsilon=1e-5, name=name)(x)
    raise unknown("normalisation", norm, NORMS)


POOLINGS = ("avg", "max", "none")


def pool2x2(x: jax.Array, pooling: str) -> jax.Array:
    """2x2 pooling of stride 2; an odd last row or column is dropped, as PyTorch drops it.

    By reshape and reduction: XLA's `reduce_window` is slow on a CPU, and so is its gradient.

    Args:
      x: [B, h, w, c].
      pooling: "avg", "max" or "none".

    Returns:
      [B, h // 2, w // 2, c], or x itself for "none".

    Raises:
      ConfigError: the map is smaller than 2x2, or the name is unknown.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    if pooling == "none":
        return x
    batch, height, width, channels = x.shape
    h, w = height // 2, width // 2
    if h == 0 or w == 0:
        raise ConfigError(
            f"a {height}x{width} map cannot be pooled by 2x2",
            fix="use fewer blocks (a smaller depth), larger images or pooling='none'",
        )
    if pooling == "max":
        tiles = x[:, : 2 * h, : 2 * w].reshape(batch, h, 2, w, 2, channels)
        return tiles.max(axis=(2, 4))
    x = x[:, : 2 * h, : 2 * w].reshape(batch, h, 2, w, 2, channels)
    return 0.25 * (x[:, :, 0, :, 0] + x[:, :, 0, :, 1] + x[:, :, 1, :, 0] + x[:, :, 1, :, 1])
