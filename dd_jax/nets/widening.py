"""The ConvNet of self-supervised dataset distillation: widths double, normalisation follows.

Source: db-Lee/selfsup_dd; Lee et al., Self-Supervised Dataset Distillation for Transfer Learning,
ICLR 2024.
"""

from __future__ import annotations

from dd_jax.nets.convnet import convnet_doubling
from dd_jax.nets.layers import KEPT
from dd_jax.types import DataSpec, Network


def convnet_widening(
    spec: DataSpec,
    *,
    depth: int = 3,
    width: int = 128,
    norm: str = "batch",
    pooling: str = "avg",
    init_style: str = "torch",
    formulation: str = "auto",
) -> Network:
    """Blocks of convolution, normalisation, ReLU and pooling of widths width, 2 width, 4 width, ...

    Unlike `convnet_doubling` it normalises after each convolution, the first one included. The
    arguments are those of `convnet`. The paper has width 128 at depth 3 (32 pixels) and 64 at depth
    4 (64 pixels), so that the last block has 512 channels.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> convnet_widening(DataSpec("toy", (28, 28, 1), 10, tuple("abcdefghij"))).name
      'convnet_widening'
    """
    network = convnet_doubling(
        spec, depth=depth, width=width, norm=norm, pooling=pooling, init_style=init_style,
        formulation=formulation, norm_first=False, kept=KEPT,
    )
    return network._replace(name="convnet_widening")
