"""ResNet-18 for small images: a 3x3 stem without max-pooling, four stages, global average pooling.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, in the form that the
field uses for 32 pixels.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax import backend
from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.nets.conv import conv3x3
from dd_jax.nets.layers import NORMS, initialisers, normalise_maps
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network


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
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))
    # One matrix product over every second shift, for the reasons given in `nets.conv`.
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    rows = jnp.concatenate(shifts, axis=-1)
    return rows @ kernel.reshape(9 * channels, -1)


class _Conv(nn.Module):
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


class ResNet(nn.Module):
    """Basic blocks in stages of doubling width; every stage but the first halves the map."""

    blocks: tuple[int, ...]
    width: int
    num_classes: int
    norm: str = "batch"
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        def norm(x, name):
            return normalise_maps(x, self.norm, train=train, name=name)

        def conv(width, name, size=3, stride=1):
            return _Conv(width, size, stride, self.init_style, name=name)

        x = nn.relu(norm(conv(self.width, "stem")(x), "stem_norm"))
        taps = []
        for stage, count in enumerate(self.blocks):
            width = self.width * 2**stage
            for block in range(count):
                name = f"stage{stage}_block{block}"
                stride = 2 if stage > 0 and block == 0 else 1
                y = norm(conv(width, f"{name}_conv0", stride=stride)(x), f"{name}_norm0")
                y = norm(conv(width, f"{name}_conv1")(nn.relu(y)), f"{name}_norm1")
                if x.shape != y.shape:
                    x = norm(conv(width, f"{name}_skip", 1, stride)(x), f"{name}_skip_norm")
                x = nn.relu(x + y)
            taps.append(x)
        features = jnp.mean(x, axis=(1, 2))
        kernel, bias = initialisers(self.init_style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)


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
    if norm not in NORMS:
        raise unknown("normalisation", norm, NORMS)
    require_whole("width", width, example=64)
    if min(spec.shape[:2]) < 8:
        raise ConfigError(f"images are {spec.shape[0]}x{spec.shape[1]}, expected at least 8x8",
                          fix="use a smaller network such as 'convnet'")
    module = ResNet((2, 2, 2, 2), width, spec.num_classes, norm, init_style)
    return from_linen(module, spec.shape, name="resnet18")
