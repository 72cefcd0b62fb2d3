"""What accuracy a network should reach before anybody is taught by it.

Bounds, not results: each is some points below what the field reports of whole trainings, so that a
sound training of about twenty epochs is above it and one that was cut short, or went wrong, is not.
Of data that are not known it is a share of the way from chance to certainty.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dd_jax.data.conventions import known_as

# Data set -> network -> share of the test images; "" for every other network.
EXPECTED: Mapping[str, Mapping[str, float]] = MappingProxyType({
    "mnist": {"": 0.985, "mlp": 0.97, "vit_tiny": 0.975},
    "fashion_mnist": {"": 0.90, "mlp": 0.87, "alexnet": 0.89, "resnet18": 0.92, "resnet50": 0.92,
                      "vgg11": 0.91, "wrn16_2": 0.91, "vit_tiny": 0.86},
    "fashion_mnist_10k": {"": 0.85, "mlp": 0.82, "resnet18": 0.86, "vit_tiny": 0.78},
    "svhn": {"": 0.92, "mlp": 0.75, "vit_tiny": 0.85},
    "cifar10": {"": 0.80, "mlp": 0.50, "alexnet": 0.74, "resnet18": 0.90, "resnet50": 0.90,
                "wrn16_2": 0.89, "mobilenet_v2": 0.87, "vgg11": 0.86, "vit_tiny": 0.70},
    "cifar100": {"": 0.50, "mlp": 0.20, "alexnet": 0.40, "resnet18": 0.67, "resnet50": 0.67,
                 "wrn16_2": 0.64, "mobilenet_v2": 0.58, "vgg11": 0.58, "vit_tiny": 0.42},
})
_SHARE = 0.3  # of the way from chance to certainty


def expected(network: str, data: str, classes: int) -> tuple[float, str]:
    """The accuracy that a teacher should reach, and what it is.

    Args:
      network: its name in `nets.NETWORKS`.
      data: name of the data set.
      classes: K, for data that are not known.

    Returns:
      (a share of the test images, in words where it comes from).

    Example:
      >>> expected("resnet18", "fashion_mnist", 10)
      (0.92, 'the bound of resnet18 on fashion_mnist')
      >>> round(expected("resnet18", "my_own", 10)[0], 2)
      0.37
    """
    known = EXPECTED.get(known_as(data))
    if known is not None:
        return known.get(network, known[""]), f"the bound of {network} on {known_as(data)}"
    chance = 1.0 / classes
    return chance + _SHARE * (1.0 - chance), f"a bound for {classes} classes of unknown data"
