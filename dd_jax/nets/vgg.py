"""VGG-11 for small images: five poolings, one dense layer.

Source: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition,
ICLR 2015, in the form of VICO-UoE/DatasetCondensation (networks).
"""

from __future__ import annotations

import flax.linen as nn
import jax

from dd_jax.errors import unknown
from dd_jax.nets.checks import check_size, check_width
from dd_jax.nets.layers import NORMS, Conv3x3, initialisers, normalise_maps, pool2x2
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network

# Widths of the convolutions between two poolings, in units of the first.
_BLOCKS = ((1,), (2,), (4, 4), (8, 8), (8, 8))


class VGG(nn.Module):
    """Blocks of 3x3 convolutions with normalisation and ReLU, each block ended by max pooling."""

    blocks: tuple[tuple[int, ...], ...]
    num_classes: int
    norm: str = "instance"
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        taps = []
        padding = _first_padding(x.shape[-1])
        for block, widths in enumerate(self.blocks):
            for i, width in enumerate(widths):
                name = f"block{block}_conv{i}"
                x = Conv3x3(width, padding, self.init_style, name=name)(x)
                x = nn.relu(normalise_maps(x, self.norm, train=train, name=f"{name}_norm"))
                padding = 1
            taps.append(x)
            x = pool2x2(x, "max")
        features = x.reshape(x.shape[0], -1)
        kernel, bias = initialisers(self.init_style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)


def _first_padding(channels: int) -> int:
    # Grey images grow from 28 to 32 pixels, the least that five poolings need.
    return 3 if channels == 1 else 1


def vgg11(
    spec: DataSpec, *, width: int = 64, norm: str = "instance", init_style: str = "torch"
) -> Network:
    """VGG-11: eight 3x3 convolutions of width, 2, 4, 4, 8, 8, 8 and 8 times width.

    Args:
      spec: the data it is for: at least 32 pixels, or 28 with one channel.
      width: channels of the first convolution.
      norm: "none", "batch", "instance" (default), "group" or "layer".
      init_style: "torch", "lecun" or "gaussian", see `nets.layers.initialisers`.

    Returns:
      A `Network` with one tap for each of the five blocks; for 28x28x1 or 32x32 images features
      are [B, 8 * width].

    Raises:
      ConfigError: an unknown normalisation, a width below 1, or images that are too small.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = vgg11(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      9231114
    """
    if norm not in NORMS:
        raise unknown("normalisation", norm, NORMS)
    check_width(width)
    grown = 2 * (_first_padding(spec.shape[2]) - 1)
    check_size(spec, network="vgg11", grown=grown, poolings=len(_BLOCKS))
    blocks = tuple(tuple(factor * width for factor in block) for block in _BLOCKS)
    return from_linen(VGG(blocks, spec.num_classes, norm, init_style), spec.shape, name="vgg11")
