"""MobileNetV2 for small images: inverted residuals, depthwise convolutions between two of 1x1.

Differs from the official code: the stem and the second group of blocks keep the size of the map, as
the field has it for 32 pixels, so that three groups halve it; there is no dropout; initial weights
are those of `init_style`; a smaller `width` narrows the last convolution, too.

Source: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.nets.checks import check_halved
from dd_jax.nets.convolution import Convolution, Depthwise
from dd_jax.nets.layers import initialisers, normalise_maps
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network

# Stages of one size of the map; each group of blocks is (expansion, channels, how many).
_STAGES = (((1, 16, 1), (6, 24, 2)), ((6, 32, 3),), ((6, 64, 4), (6, 96, 3)),
           ((6, 160, 3), (6, 320, 1)))
_STEM, _LAST = 32, 1280


def channels(wanted: float) -> int:
    """The multiple of 8 that is nearest, at least 8, and not more than a tenth below.

    Example:
      >>> [channels(c) for c in (3, 12, 18, 1280)]
      [8, 16, 24, 1280]
    """
    found = max(8, int(wanted + 4) // 8 * 8)
    return found if found >= 0.9 * wanted else found + 8


class MobileNetV2(nn.Module):
    """Blocks that widen by 1x1, convolve each channel and narrow by 1x1 without activation.

    Where a block changes neither size nor width its input is added. `width` is the stem's, and all
    others are in proportion, rounded to multiples of 8.
    """

    width: int
    num_classes: int
    norm: str = "batch"
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        share = self.width / _STEM

        def normed(layer, x, name):
            return normalise_maps(layer(x), self.norm, train=train, name=f"{name}_norm")

        def conv(width, x, name, size=1):
            return normed(Convolution(width, size, 1, self.init_style, name=name), x, name)

        def block(x, name, expansion, width, stride):
            y = x
            if expansion != 1:
                y = nn.relu6(conv(expansion * x.shape[-1], y, f"{name}_widen"))
            depthwise = Depthwise(stride, self.init_style, name=f"{name}_depthwise")
            y = nn.relu6(normed(depthwise, y, f"{name}_depthwise"))
            y = conv(width, y, f"{name}_narrow")
            return x + y if x.shape == y.shape else y

        x = nn.relu6(conv(channels(_STEM * share), x, "stem", 3))
        taps = []
        for stage, groups in enumerate(_STAGES):
            number = 0
            for expansion, width, count in groups:
                for _ in range(count):
                    stride = 2 if stage > 0 and number == 0 else 1
                    x = block(x, f"stage{stage}_block{number}", expansion, channels(width * share),
                              stride)
                    number += 1
            taps.append(x)
        x = nn.relu6(conv(channels(_LAST * share), x, "last"))
        features = jnp.mean(x, axis=(1, 2))
        kernel, bias = initialisers(self.init_style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)


def mobilenet_v2(
    spec: DataSpec, *, width: int = 32, norm: str = "batch", init_style: str = "torch"
) -> Network:
    """MobileNetV2: seventeen inverted residuals in four stages.

    Args:
      spec: the data it is for, of any size of at least 8 pixels.
      width: channels of the stem; 16 is the paper's multiplier of one half, 8 that of a quarter.
      norm: "none", "batch" (default), "instance", "group" or "layer".
      init_style: "torch" or "lecun".

    Returns:
      A `Network` with features [B, 40 * width] and one tap for each stage.

    Raises:
      ConfigError: an unknown normalisation, a width below 1, or images that are too small.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = mobilenet_v2(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      2236682
    """
    check_halved(spec, width, norm)
    module = MobileNetV2(width, spec.num_classes, norm, init_style)
    return from_linen(module, spec.shape, name="mobilenet_v2")
