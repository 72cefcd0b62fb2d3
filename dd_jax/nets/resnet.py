"""ResNet-18 and ResNet-50 for small images: a 3x3 stem, four stages, global average pooling.

There is no max-pooling behind the stem. The block of ResNet-50 has its stride in the 3x3
convolution, where most codes have it since the paper had it in the first 1x1.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, in the form that the
field uses for 32 pixels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.nets.checks import check_halved
from dd_jax.nets.convolution import Convolution
from dd_jax.nets.layers import initialisers, normalise_maps
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network


class ResNet(nn.Module):
    """Residual blocks in stages of doubling width; every stage but the first halves the map.

    A basic block has two 3x3 convolutions; a bottleneck one of 3x3 between two of 1x1, the last of
    which has four times the width.
    """

    blocks: tuple[int, ...]
    width: int
    num_classes: int
    norm: str = "batch"
    init_style: str = "torch"
    bottleneck: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        def norm(x, name):
            return normalise_maps(x, self.norm, train=train, name=name)

        def conv(width, name, size=3, stride=1):
            return Convolution(width, size, stride, self.init_style, name=name)

        x = nn.relu(norm(conv(self.width, "stem")(x), "stem_norm"))
        taps = []
        for stage, count in enumerate(self.blocks):
            for block in range(count):
                name = f"stage{stage}_block{block}"
                stride = 2 if stage > 0 and block == 0 else 1
                y = x
                for i, layer in enumerate(self._layers(self.width * 2**stage, stride)):
                    y = nn.relu(y) if i else y
                    y = norm(conv(layer[0], f"{name}_conv{i}", *layer[1:])(y), f"{name}_norm{i}")
                if x.shape != y.shape:
                    skip = conv(y.shape[-1], f"{name}_skip", 1, stride)
                    x = norm(skip(x), f"{name}_skip_norm")
                x = nn.relu(x + y)
            taps.append(x)
        features = jnp.mean(x, axis=(1, 2))
        kernel, bias = initialisers(self.init_style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)

    def _layers(self, width: int, stride: int) -> tuple[tuple[int, int, int], ...]:
        """(width, size, stride) of each convolution of a block."""
        if self.bottleneck:
            return (width, 1, 1), (width, 3, stride), (4 * width, 1, 1)
        return (width, 3, stride), (width, 3, 1)


def resnet18(
    spec: DataSpec, *, width: int = 64, norm: str = "batch", init_style: str = "torch"
) -> Network:
    """ResNet-18 with a 3x3 stem: two basic blocks in each of four stages.

    Args:
      spec: the data it is for, of any size of at least 8 pixels.
      width: channels of the first stage.
      norm: "none", "batch" (default), "instance", "group" or "layer".
      init_style: "torch" or "lecun".

    Returns:
      A `Network` with features [B, 8 * width] and one tap for each stage.

    Raises:
      ConfigError: an unknown normalisation, a width below 1, or images that are too small.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = resnet18(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      11173962
    """
    return _resnet("resnet18", (2, 2, 2, 2), False, spec, width, norm, init_style)


def resnet50(
    spec: DataSpec, *, width: int = 64, norm: str = "batch", init_style: str = "torch"
) -> Network:
    """ResNet-50 with a 3x3 stem: 3, 4, 6 and 3 bottleneck blocks in four stages.

    The arguments are those of `resnet18`; features are [B, 32 * width], and the taps have 4, 8, 16
    and 32 times `width` channels.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = resnet50(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      23520842
    """
    return _resnet("resnet50", (3, 4, 6, 3), True, spec, width, norm, init_style)


def _resnet(
    name: str, blocks: tuple[int, ...], bottleneck: bool, spec: DataSpec, width: int, norm: str,
    init_style: str,
) -> Network:
    check_halved(spec, width, norm)
    module = ResNet(blocks, width, spec.num_classes, norm, init_style, bottleneck)
    return from_linen(module, spec.shape, name=name)
