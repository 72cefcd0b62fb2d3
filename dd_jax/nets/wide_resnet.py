"""WRN-16-2, the small wide residual network that knowledge distillation is mostly tested on.

Normalisation and ReLU come before each convolution, and the network ends with one more of them.

Differs from the official code: initial weights are those of `init_style`, and there is no dropout.

Source: Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016.
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

_STAGES, _BLOCKS = 3, 2  # of a depth of 6 * 2 + 4


class WideResNet(nn.Module):
    """Stages of pre-activated basic blocks; widths double, all stages but the first halve the map.

    The first stage is `width` wide and the stem half as much.
    """

    width: int
    num_classes: int
    norm: str = "batch"
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        def activated(x, name):
            return nn.relu(normalise_maps(x, self.norm, train=train, name=name))

        def conv(width, name, size=3, stride=1):
            return Convolution(width, size, stride, self.init_style, name=name)

        x = conv(max(1, self.width // 2), "stem")(x)
        taps = []
        for stage in range(_STAGES):
            width = self.width * 2**stage
            for block in range(_BLOCKS):
                name = f"stage{stage}_block{block}"
                stride = 2 if stage > 0 and block == 0 else 1
                y = activated(x, f"{name}_norm0")
                if block == 0:  # the other width is reached from what is activated already
                    x = conv(width, f"{name}_skip", 1, stride)(y)
                y = activated(conv(width, f"{name}_conv0", stride=stride)(y), f"{name}_norm1")
                x = x + conv(width, f"{name}_conv1")(y)
            taps.append(x)
        features = jnp.mean(activated(x, "last_norm"), axis=(1, 2))
        kernel, bias = initialisers(self.init_style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)


def wrn16_2(
    spec: DataSpec, *, width: int = 32, norm: str = "batch", init_style: str = "torch"
) -> Network:
    """WRN-16-2: two pre-activated blocks in each of three stages, twice as wide as a ResNet's.

    Args:
      spec: the data it is for, of any size of at least 8 pixels.
      width: channels of the first stage, 16 times 2.
      norm: "none", "batch" (default), "instance", "group" or "layer".
      init_style: "torch" or "lecun".

    Returns:
      A `Network` with features [B, 4 * width] and one tap for each stage, before its ReLU.

    Raises:
      ConfigError: an unknown normalisation, a width below 1, or images that are too small.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> network = wrn16_2(DataSpec("toy", (32, 32, 3), 10, tuple("abcdefghij")))
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0))["params"]
      >>> sum(x.size for x in jax.tree.leaves(shapes))
      691674
    """
    check_halved(spec, width, norm)
    module = WideResNet(width, spec.num_classes, norm, init_style)
    return from_linen(module, spec.shape, name="wrn16_2")
