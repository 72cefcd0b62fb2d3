"""The architectures of the field, each one line: lists of `dd_jax.kernels.layers`.

FC-L, Conv-L, ConvNet and ConvNet3 are those of KIP (Nguyen et al., arXiv:2107.13034), Myrtle-N
those of Shankar et al. (arXiv:2003.02237).
"""

from __future__ import annotations

from dd_jax.errors import ConfigError, unknown
from dd_jax.kernels.layers import (
    B_STD,
    W_STD,
    Layer,
    average_pool,
    conv,
    dense,
    flatten,
    global_average_pool,
    relu,
)

READ_OUTS = {"flatten": flatten, "gap": global_average_pool}
MYRTLE = {5: (1, 1, 1), 7: (1, 2, 2), 10: (2, 3, 3)}


def fully_connected(
    depth: int = 1, *, W_std: float = W_STD, b_std: float = B_STD
) -> tuple[Layer, ...]:
    """FC-L: `depth` hidden layers and a last dense one.

    Example:
      >>> [layer.op for layer in fully_connected(1)]
      ['flatten', 'dense', 'relu', 'dense']
    """
    d = dense(W_std, b_std)
    return (flatten(), *(_depth(depth) * [d, relu()]), d)


def convolutional(
    depth: int = 3, *, W_std: float = W_STD, b_std: float = B_STD
) -> tuple[Layer, ...]:
    """Conv-L: `depth` convolutions without pooling."""
    c = conv(W_std, b_std)
    return (*(_depth(depth) * [c, relu()]), flatten(), dense(W_std, b_std))


def convnet(
    depth: int = 3,
    read_out: str = "flatten",
    *,
    prepended: bool = False,
    W_std: float = W_STD,
    b_std: float = B_STD,
) -> tuple[Layer, ...]:
    """ConvNet: `depth` blocks of convolution, rectifier and pooling.

    Args:
      depth: number of blocks, at least 1; an image needs 2**depth pixels on a side.
      read_out: "flatten" or "gap" (global average pooling).
      prepended: one more convolution and rectifier before the blocks.
      W_std: standard deviation of weights, times sqrt(fan_in).
      b_std: standard deviation of biases.

    Example:
      >>> [layer.op for layer in convnet(1)]
      ['conv', 'relu', 'average_pool', 'flatten', 'dense']
    """
    if read_out not in READ_OUTS:
        raise unknown("read-out", read_out, READ_OUTS)
    c = conv(W_std, b_std)
    first = [c, relu()] if prepended else []
    blocks = _depth(depth) * [c, relu(), average_pool()]
    return (*first, *blocks, READ_OUTS[read_out](), dense(W_std, b_std))


def myrtle(depth: int = 5, *, W_std: float = W_STD, b_std: float = B_STD) -> tuple[Layer, ...]:
    """Myrtle-5, -7 or -10: three blocks of convolutions, read out by global average pooling."""
    if depth not in MYRTLE:
        raise ConfigError(f"Myrtle of depth {depth!r}, expected 5, 7 or 10", fix="pass depth=5")
    c = conv(W_std, b_std)
    one, two, three = (count * [c, relu()] for count in MYRTLE[depth])
    pool, end = average_pool(), [global_average_pool(), dense(W_std, b_std)]
    return (c, relu(), *one, pool, *two, pool, *three, *end)


def _depth(depth: int) -> int:
    if not isinstance(depth, int) or depth < 1:
        message = f"depth is {depth!r}, expected an integer of at least 1"
        raise ConfigError(message, fix="pass depth=1 or more")
    return depth
