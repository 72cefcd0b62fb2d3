"""The ConvNet of Dataset Condensation and the width-doubling one of FRePo.

One block is a 3x3 convolution, a normalisation, ReLU and 2x2 pooling. One-channel images are padded
by 3 in the first convolution, so that 28x28 grows to 32x32 and ends, like 32x32, at 4x4.

Source: VICO-UoE/DatasetCondensation (networks), yongchao97/FRePo (models).
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax

from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.nets.layers import (
    KEPT,
    KEPT_BY_FREPO,
    NORMS,
    POOLINGS,
    Conv3x3,
    initialisers,
    normalise_maps,
    pool2x2,
)
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network

# softplus(60 z) / 60 is ReLU with its kink rounded off over a width of 1/60, so that derivatives of
# a network's own derivatives do not vanish.
ACTIVATIONS = {"relu": nn.relu, "softplus60": lambda z: nn.softplus(60.0 * z) / 60.0}


class ConvNet(nn.Module):
    """Blocks of convolution, normalisation, ReLU and pooling, then one dense layer.

    `norm_first` puts the normalisation before the convolution of every block but the first,
    which is FRePo's order; otherwise it follows the convolution, which is DC's. `kept` is the share
    of its running statistics that a step of batch normalisation keeps. `prepended` puts one more
    convolution and activation before the blocks, which is KIP's.
    """

    widths: tuple[int, ...]
    num_classes: int
    norm: str = "instance"
    norm_first: bool = False
    pooling: str = "avg"
    init_style: str = "torch"
    formulation: str = "auto"
    first_padding: int | None = None
    activation: str = "relu"
    kept: float = KEPT
    prepended: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        taps, activation = [], ACTIVATIONS[self.activation]
        norm = partial(normalise_maps, norm=self.norm, train=train, kept=self.kept)
        conv = partial(Conv3x3, init_style=self.init_style, formulation=self.formulation)
        padding = _first_padding(self.first_padding, x.shape[-1])
        if self.prepended:
            x = activation(conv(self.widths[0], padding, name="first")(x))
            padding = 1
        for i, width in enumerate(self.widths):
            if self.norm_first and i > 0:
                x = norm(x, name=f"norm{i}")
            x = conv(width, 1 if i else padding, name=f"conv{i}")(x)
            if not self.norm_first:
                x = norm(x, name=f"norm{i}")
            taps.append(activation(x))
            x = pool2x2(taps[-1], self.pooling)
        features = x.reshape(x.shape[0], -1)
        kernel, bias = initialisers(self.init_style, features.shape[-1])
        head = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")
        return head(features), features, tuple(taps)


def _first_padding(given: int | None, channels: int) -> int:
    if given is not None:
        return given
    return 3 if channels == 1 else 1


def _check(
    spec: DataSpec, depth: int, width: int, norm: str, pooling: str, padding: int | None = None,
    activation: str = "relu",
) -> None:
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if norm not in NORMS:
        raise unknown("normalisation", norm, NORMS)
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    for label, value in (("depth", depth), ("width", width)):
        require_whole(label, value, example=3)
    height, wide, channels = spec.shape
    if padding is not None and padding not in (1, 2, 3):
        raise ConfigError(f"first_padding is {padding!r}, expected 1, 2, 3 or None",
                          fix="pass first_padding=1 to keep the size of grey images")
    size = min(height, wide) + 2 * (_first_padding(padding, channels) - 1)
    for block in range(depth if pooling != "none" else 0):
        if size < 2:
            raise ConfigError(
                f"depth is {depth}, expected at most {block}: {height}x{wide} images shrink to "
                f"{size}x{size} before the pooling of block {block + 1}",
                fix=f"pass depth={block}" if block else "use larger images",
            )
        size //= 2


def convnet(
    spec: DataSpec,
    *,
    depth: int = 3,
    width: int = 128,
    norm: str = "instance",
    pooling: str = "avg",
    init_style: str = "torch",
    formulation: str = "auto",
    first_padding: int | None = None,
    activation: str = "relu",
    prepended: bool = False,
) -> Network:
    """DC's ConvNet: `depth` blocks of constant width, normalisation after each convolution.

    Args:
      spec: the data it is for.
      depth: number of blocks: 3 for 28 and 32 pixels, 4 for 64, 5 for 128.
      width: channels of each block.
      norm: "none", "batch", "instance" (default), "group" or "layer".
      pooling: "avg", "max" or "none".
      init_style: "torch", "lecun" or "gaussian", see `nets.layers.initialisers`.
      formulation: of the convolution, see `nets.conv`.
      first_padding: zeros on each side in the first convolution; None: 3 for one channel, else 1.
      activation: "relu", or "softplus60": softplus(60 z) / 60, its smooth twin.
      prepended: whether one more convolution and activation precede the blocks, as in KIP.

    Returns:
      A `Network`; for 28x28x1 or 32x32 images features are [B, 16 * width].

    Raises:
      ConfigError: an unknown name, a non-positive size, or images too small for the depth.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> import jax
      >>> network = convnet(DataSpec("toy", (28, 28, 1), 10, tuple("abcdefghij")))
      >>> sum(x.size for x in jax.tree.leaves(network.init(jax.random.key(0))))
      317706
    """
    _check(spec, depth, width, norm, pooling, first_padding, activation)
    module = ConvNet((width,) * depth, spec.num_classes, norm, False, pooling, init_style,
                     formulation, first_padding=first_padding, activation=activation,
                     prepended=prepended)
    return from_linen(module, spec.shape, name="convnet")


def convnet_doubling(
    spec: DataSpec,
    *,
    depth: int = 3,
    width: int = 128,
    norm: str = "batch",
    pooling: str = "avg",
    init_style: str = "lecun",
    formulation: str = "auto",
    activation: str = "relu",
    norm_first: bool = True,
    kept: float = KEPT_BY_FREPO,
) -> Network:
    """FRePo's ConvNet: widths width, 2 width, 4 width, ..., normalisation before convolutions.

    The arguments are those of `convnet`, and `norm_first`: whether a normalisation precedes the
    convolution of every block but the first (FRePo) or follows that of each (RCIG), and `kept`: the
    share of its running statistics that a step of batch normalisation keeps, 0.1 in both codes and
    0.9 in all others. FRePo distils with norm "batch" and evaluates with "none".

    Example:
      >>> from dd_jax.types import DataSpec
      >>> convnet_doubling(DataSpec("toy", (28, 28, 1), 10, tuple("abcdefghij"))).name
      'convnet_doubling'
    """
    _check(spec, depth, width, norm, pooling, activation=activation)
    widths = tuple(width * 2**i for i in range(depth))
    module = ConvNet(widths, spec.num_classes, norm, norm_first, pooling, init_style, formulation,
                     activation=activation, kept=kept)
    return from_linen(module, spec.shape, name="convnet_doubling")
