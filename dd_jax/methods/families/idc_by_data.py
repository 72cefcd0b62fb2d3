"""What IDC's authors have for each data set: settings that IDC, and DREAM on it, leave to the data.

Differs from the official code: data that it does not know are treated like Fashion-MNIST if grey
and CIFAR-10 if not; Tiny-ImageNet is as in DREAM's code, but for its rate at 50 images per class.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from dd_jax.data.conventions import known_as
from dd_jax.methods.families.formed import Formed
from dd_jax.methods.frame import GradientDistance, Rate, Share, Site, Views, Whole


class _Usual(NamedTuple):
    """What the authors' code has for a data set.

    Attributes:
      rate, side: of the images, for ten of `side` pixels per class.
      distance, train_images: see `ByData`.
      several: settings where stored images show several.
    """

    rate: float
    side: int
    distance: str
    train_images: int
    several: Mapping[str, Any] = MappingProxyType({})


_USUAL = {
    "mnist": _Usual(1e-4, 28, "conv_absolute", 500, dict(matching="idc_training", mix=0.0)),
    "fashion_mnist": _Usual(1e-4, 32, "conv_absolute", 500),
    "svhn": _Usual(5e-3, 32, "conv_squared", 500),
    "cifar10": _Usual(5e-3, 32, "conv_squared", 2000),
    "cifar100": _Usual(5e-3, 32, "conv_squared", 2000),
    "tiny_imagenet": _Usual(5e-3, 32, "conv_squared", 1000),
}


class ByData(Formed):
    """Settings of IDC's matching that follow the data where they are None.

    Attributes:
      learning_rate: of the SGD on pixels in [0, 1]; None: the authors' for the data, such as
        1e-4 * ipc / 10 * (H / 32)^2 for Fashion-MNIST and 5e-3 * ipc / 10 for CIFAR.
      distance: None: "conv_absolute" for grey images, "conv_squared" for colour ones.
      train_images: real images that train the network after a step; None: the authors', 500 or, of
        CIFAR, 2000.
      mix: probability of CutMix per batch, in training and in the evaluation; None: 0.5, of MNIST 0
        where stored images show several.
      matching: a name in `augment.by_name`, shared by the real and shown images of a class; None:
        "idc_matching", of MNIST "idc_training" where stored images show several.
    """

    learning_rate: Rate | None = None
    distance: GradientDistance | None = None
    train_images: Whole | None = None
    mix: Share | None = None
    matching: Views | None = None

    def usual(self, at: Site) -> dict[str, Any]:
        """The settings that are None, as the authors have them for the data, and those given."""
        like = "cifar10" if at.colour else "fashion_mnist"
        usual = _USUAL.get(known_as(at.spec.name), _USUAL[like])
        rate = usual.rate * (at.spec.shape[0] / usual.side) ** 2 * self.ipc / 10
        found = dict(learning_rate=rate, distance=usual.distance, train_images=usual.train_images,
                     mix=0.5, matching="idc_matching")
        if self.factor > 1:
            found.update(usual.several)
        given = {name: getattr(self, name) for name in found}
        return {**found, **{name: value for name, value in given.items() if value is not None}}
