"""The layers of an infinitely wide network: a kernel is a list of these.

    3 * [conv(), relu(), average_pool()] + [flatten(), dense()]

A layer is a record without behaviour; `dd_jax.kernels.program` gives it one in the cheapest layout
that the whole list allows. Weights and biases are in the 'ntk' parameterization,
  z = W_std / sqrt(fan_in) * W x + b_std * b,   W, b ~ N(0, 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dd_jax.errors import ConfigError

W_STD = math.sqrt(2.0)
B_STD = 0.1


class Layer(NamedTuple):
    """One layer; make it with the functions below.

    Attributes:
      op: "conv", "dense", "relu", "average_pool", "flatten" or "global_average_pool".
      weight: W_std**2 of an affine layer.
      bias: b_std**2 of an affine layer.
    """

    op: str
    weight: float = 0.0
    bias: float = 0.0


def _affine(op: str, W_std: float, b_std: float) -> Layer:
    for name, value, least in (("W_std", W_std, "above 0"), ("b_std", b_std, "at least 0")):
        good = isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
        if not good or (name == "W_std" and value == 0):
            raise ConfigError(
                f"{name} of a {op} layer is {value!r}, expected a number {least}",
                fix="the usual values are W_std=2**0.5 and b_std=0.1",
            )
    return Layer(op, float(W_std) ** 2, float(b_std) ** 2)


def dense(W_std: float = W_STD, b_std: float = B_STD) -> Layer:
    """A fully connected layer: K <- W_std^2 K + b_std^2; it comes after `flatten`."""
    return _affine("dense", W_std, b_std)


def conv(W_std: float = W_STD, b_std: float = B_STD) -> Layer:
    """A 3x3 convolution with zero padding: W_std^2 / 9 times the sum over the window, + b_std^2."""
    return _affine("conv", W_std, b_std)


def relu() -> Layer:
    """The rectifier max(x, 0)."""
    return Layer("relu")


def average_pool() -> Layer:
    """The mean of 2x2 windows, stride 2; an odd last row or column is dropped."""
    return Layer("average_pool")


def flatten() -> Layer:
    """All positions side by side: the similarity becomes the mean over equal positions."""
    return Layer("flatten")


def global_average_pool() -> Layer:
    """The mean over positions: the similarity becomes the mean over all pairs of positions."""
    return Layer("global_average_pool")
