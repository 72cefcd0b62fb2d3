"""The ConvNet of KIP: one convolution more before the blocks.

Source: Nguyen et al., Dataset Distillation with Infinitely Wide Convolutional Networks, NeurIPS
2021.
"""

from __future__ import annotations

from dd_jax.nets.convnet import convnet
from dd_jax.types import DataSpec, Network


def convnet_prepended(
    spec: DataSpec,
    *,
    depth: int = 3,
    width: int = 128,
    norm: str = "none",
    pooling: str = "avg",
    init_style: str = "gaussian",
    formulation: str = "auto",
    first_padding: int | None = 1,
) -> Network:
    """Convolution and ReLU, then `depth` blocks of convolution, normalisation, ReLU and pooling.

    The arguments are those of `convnet`. Infinitely wide, it is the kernel "convnet" of
    `kernels.named`; without the first convolution it would be "convnet3".

    Example:
      >>> from dd_jax.types import DataSpec
      >>> convnet_prepended(DataSpec("toy", (28, 28, 1), 10, tuple("abcdefghij"))).name
      'convnet_prepended'
    """
    network = convnet(
        spec, depth=depth, width=width, norm=norm, pooling=pooling, init_style=init_style,
        formulation=formulation, first_padding=first_padding, prepended=True,
    )
    return network._replace(name="convnet_prepended")
