"""The multi-layer perceptron of the field's cross-architecture tables."""

from __future__ import annotations

import flax.linen as nn
import jax

from dd_jax.nets.layers import initialisers
from dd_jax.nets.record import from_linen
from dd_jax.types import DataSpec, Network


class MLP(nn.Module):
    """Dense layers with ReLU; features are the last hidden activation."""

    widths: tuple[int, ...]
    num_classes: int
    init_style: str = "torch"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False):
        x = x.reshape(x.shape[0], -1)
        taps = []
        for i, width in enumerate(self.widths):
            kernel, bias = initialisers(self.init_style, x.shape[-1])
            x = nn.relu(nn.Dense(width, kernel_init=kernel, bias_init=bias, name=f"hidden{i}")(x))
            taps.append(x)
        kernel, bias = initialisers(self.init_style, x.shape[-1])
        logits = nn.Dense(self.num_classes, kernel_init=kernel, bias_init=bias, name="head")(x)
        return logits, x, tuple(taps)


def mlp(
    spec: DataSpec, *, width: int = 128, depth: int = 3, init_style: str = "torch"
) -> Network:
    """A multi-layer perceptron; DC's has two hidden layers of 128 (depth 3 counts the head).

    Args:
      spec: the data it is for.
      width: units of each hidden layer.
      depth: number of dense layers, at least 2.
      init_style: "torch" or "lecun".

    Returns:
      A `Network` with features [B, width].

    Example:
      >>> from dd_jax.types import DataSpec
      >>> mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b"))).name
      'mlp'
    """
    module = MLP((width,) * (depth - 1), spec.num_classes, init_style)
    return from_linen(module, spec.shape, name="mlp")
