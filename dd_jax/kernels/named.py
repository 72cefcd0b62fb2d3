"""Kernels by name, for tables and the command line."""

from __future__ import annotations

import functools
import re

from dd_jax.errors import unknown
from dd_jax.kernels import architectures
from dd_jax.kernels.layers import B_STD, W_STD
from dd_jax.kernels.program import program
from dd_jax.types import Kernel

NAMES = ("fc1", "fc2", "fc3", "conv1", "conv2", "conv3", "convnet1", "convnet2", "convnet3",
         "convnet", "convnet3_gap", "convnet_gap", "myrtle5", "myrtle7", "myrtle10")  # fmt: skip


@functools.cache  # one object for one name: programs that hold it compile once
def named(name: str, kind: str = "ntk", *, W_std: float = W_STD, b_std: float = B_STD) -> Kernel:
    """A kernel of the field by its name.

    "fcL" and "convL" have L hidden layers; "convnetL" has L blocks of convolution, rectifier and
    2x2 average pooling; "convnet" has one more convolution before three blocks; "_gap" reads out
    by global average pooling instead of flattening; "myrtle5", "myrtle7", "myrtle10".

    Args:
      name: one of `NAMES`, or the same with another L of at least 1.
      kind: "ntk" or "nngp".
      W_std: standard deviation of weights, times sqrt(fan_in).
      b_std: standard deviation of biases.

    Raises:
      ConfigError: the name or the kind is unknown.

    Example:
      >>> named("convnet3_gap", "nngp").name
      'nngp-convnet3_gap'
    """
    scales = dict(W_std=W_std, b_std=b_std)
    match = re.fullmatch(r"(fc|convnet|conv|myrtle)([1-9][0-9]?)?(_gap)?", name)
    if match is None:
        raise unknown("kernel", name, NAMES)
    family, digits, gap = match.groups()
    depth = int(digits) if digits else None
    if (depth is None and family != "convnet") or (gap and family != "convnet"):
        raise unknown("kernel", name, NAMES)
    if family == "fc":
        layers = architectures.fully_connected(depth, **scales)
    elif family == "conv":
        layers = architectures.convolutional(depth, **scales)
    elif family == "myrtle":
        if depth not in architectures.MYRTLE:
            raise unknown("kernel", name, NAMES)
        layers = architectures.myrtle(depth, **scales)
    else:
        read_out = "gap" if gap else "flatten"
        layers = architectures.convnet(depth or 3, read_out, prepended=depth is None, **scales)
    return program(layers, kind, name=f"{kind}-{name}")
