"""Networks: the architectures of the field behind the `Network` record."""

from __future__ import annotations

from collections.abc import Callable

from dd_jax.errors import unknown
from dd_jax.nets.alexnet import alexnet
from dd_jax.nets.conv import conv3x3
from dd_jax.nets.convnet import convnet, convnet_doubling
from dd_jax.nets.mlp import mlp
from dd_jax.nets.mobilenet import mobilenet_v2
from dd_jax.nets.prepended import convnet_prepended
from dd_jax.nets.record import from_linen, with_batch_stats
from dd_jax.nets.resnet import resnet18, resnet50
from dd_jax.nets.vgg import vgg11
from dd_jax.nets.vit import vit_tiny
from dd_jax.nets.wide_resnet import wrn16_2
from dd_jax.nets.widening import convnet_widening
from dd_jax.types import DataSpec, Network

NETWORKS: dict[str, Callable[..., Network]] = {
    "alexnet": alexnet,
    "convnet": convnet,
    "convnet_doubling": convnet_doubling,
    "convnet_prepended": convnet_prepended,
    "convnet_widening": convnet_widening,
    "mlp": mlp,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "vgg11": vgg11,
    "vit_tiny": vit_tiny,
    "wrn16_2": wrn16_2,
}


def by_name(name: str, spec: DataSpec, **options) -> Network:
    """Builds a network from its name in `NETWORKS`.

    Args:
      name: one of `NETWORKS`.
      spec: the data it is for.
      **options: what the factory takes (depth, width, norm, ...).

    Raises:
      ConfigError: unknown name.

    Example:
      >>> from dd_jax.types import DataSpec
      >>> by_name("mlp", DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8).name
      'mlp'
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](spec, **options)


__all__ = ["NETWORKS", "alexnet", "by_name", "conv3x3", "convnet", "convnet_doubling",
           "convnet_prepended", "convnet_widening", "from_linen", "mlp", "mobilenet_v2", "resnet18",
           "resnet50", "vgg11", "vit_tiny", "with_batch_stats", "wrn16_2"]
