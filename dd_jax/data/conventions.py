"""What published codes take for granted of well-known data: its pixels' statistics, its flips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Statistics(NamedTuple):
    """By what codes standardise the pixels of a data set.

    Attributes:
      mean, std: one number for each channel, of pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


_IMAGENET = Statistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# As written in the code of DC, which that of almost every method of matching took over. They are
# those of the training sets but for the deviation of CIFAR-10, which is (0.247, 0.243, 0.262), and
# those of SVHN and of parts of ImageNet.
STATISTICS: Mapping[str, Statistics] = {
    "mnist": Statistics((0.1307,), (0.3081,)),
    "fashion_mnist": Statistics((0.2861,), (0.3530,)),
    "svhn": Statistics((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": Statistics((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Statistics((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny_imagenet": _IMAGENET,
    "imagenet": _IMAGENET,
    "imagenette": _IMAGENET,
}
# Data that some codes (DCC, CAFE, IDC, IDM, NCFM) standardise by the constants of another set.
BORROWED: Mapping[str, str] = {"cifar100": "cifar10"}
# Data whose mirror images mean something else, or nothing.
DIGITS = frozenset({"mnist", "svhn", "usps"})
_OTHER_NAMES = {"svhn_cropped": "svhn"}


def known_as(name: str) -> str:
    """The name by which tables here know a data set that goes by several.

    Example:
      >>> known_as("svhn_cropped"), known_as("my_own")
      ('svhn', 'my_own')
    """
    return _OTHER_NAMES.get(name, name)
