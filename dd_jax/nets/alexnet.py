"""AlexNet for small images: two 5x5 and three 3x3 convolutions, no normalisation, one dense layer.

Source: Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
Networks, NeurIPS 2012, in the form of VICO-UoE/DatasetCondensation (networks).
"""

from __future__ import annotations

import flax.linen as nn
import jax

from dd_jax.nets.checks import check_size, check_width
from dd_jax.nets.conv_patches import conv
from dd_jax.nets.layers import Conv3x3, initialisers, pool2x2
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network


class _Conv5x5(nn.Module):
    """5x5 convolution with bias, stride 1, and `padding` zeros on each side (2 keeps the size)."""

    features: int
    padding: int = 2
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel_init, bias_init = initialisers(self.init_style, 25 * channels)
        kernel = self.param("kernel", kernel_init, (5, 5, channels, self.features))
        bias = self.param("bias", bias_init, (self.features,))
        return conv(x, kernel, padding=self.padding) + bias


class AlexNet(nn.Module):
    """Five convolutions with ReLU, max pooling after the first, the second and the last."""

    widths: tuple[int, int, int, int, int]
    num_classes: int
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        style, first, taps = self.init_style, _first_padding(x.shape[-1]), []
        x = nn.relu(_Conv5x5(self.widths[0], first, style, name="conv0")(x))
        taps.append(x)
        x = nn.relu(_Conv5x5(self.widths[1], 2, style, name="conv1")(pool2x2(x, "max")))
        taps.append(x)
        x = pool2x2(x, "max")
        for i in (2, 3, 4):
            x = nn.relu(Conv3x3(self.widths[i], 1, style, name=f"conv{i}")(x))
        taps.append(x)
        features = pool2x2(x, "max").reshape(x.shape[0], -1)
        kernel, bias = initialisers(style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)


def _first_padding(channels: int) -> int:
    # Grey images grow from 28 to 32 pixels, so that both sizes end at 4x4.
    return 4 if channels == 1 else 2


def alexnet(spec: DataSpec, *, width: int = 128, init_style: str = "torch") -> Network:
    """AlexNet: convolutions of width, 3/2, 2, 3/2 and 3/2 times width, without normalisation.

    Args:
      spec: the data it is for: at least 8 pixels, or 4 with one channel.
      width: channels of the first convolution; halves are dropped from the others.
      init_style: "torch", "lecun" or "gaussian", see `nets.layers.initialisers`.

    Returns:
      A `Network` with one tap for each of the three poolings; for 28x28x1 or 32x32 images features
      are [B, 16 * (3 * width // 2)].

    Raises:
      ConfigError: a width below 1, or images that are too small.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = alexnet(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      1872202
    """
    check_width(width)
    check_size(spec, network="alexnet", grown=2 * (_first_padding(spec.shape[2]) - 2), poolings=3)
    wide = 3 * width // 2
    module = AlexNet((width, wide, 2 * width, wide, wide), spec.num_classes, init_style)
    return from_linen(module, spec.shape, name="alexnet")
