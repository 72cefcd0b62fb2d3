"""IDC: Dataset Condensation via Efficient Synthetic-Data Parameterization (Kim et al., ICML 2022).

Every stored image shows factor^2 images (1 is IDC-I); gradients of convolution weights on real and
shown images agree, class by class, along the training of random networks on real images.

Differs from the official code:
  - the images live in model space; SGD, its rate and the range [0, 1] are those of pixels all the
    same, and images are cut to the range after every step (there once per network);
  - data that the authors' code does not know are treated like Fashion-MNIST if grey and CIFAR-10 if
    not; Tiny-ImageNet is as in DREAM's code, but for its rate at 50 images per class;
  - shown images come image after image (there patch after patch); ImageNet's networks are left out;
  - evaluation: the accuracy of the last epoch, not the best one; no cutout even without CutMix, and
    SVHN with one image of factor 1 like the others (there without CutMix).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import optax

from dd_jax import pools
from dd_jax.data import real_rows
from dd_jax.data.conventions import known_as
from dd_jax.methods.families.formed import Formed
from dd_jax.methods.frame import ConvNets, GradientDistance, Rate, Share, Site, Tested, Views, Whole
from dd_jax.objectives import gradient_matching
from dd_jax.transforms import decayed_momentum, within_range


class _Usual(NamedTuple):
    """What the authors' code has for a data set.

    Attributes:
      rate, side: of the images, for ten of `side` pixels per class.
      distance, train_images: see `IDC`.
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


class IDC(Formed, ConvNets, Tested):
    """Settings of IDC; the defaults are the official ones for small images.

    Attributes:
      networks, uses: random networks, one after another, and matching steps with each of them.
      learning_rate, momentum: of the SGD on pixels in [0, 1]; None: the authors' for the data, such
        as 1e-4 * ipc / 10 * (H / 32)^2 for Fashion-MNIST and 5e-3 * ipc / 10 for CIFAR.
      batch_size, most: real images per class and step, and most shown ones, a random choice.
      distance: None: "conv_absolute" for grey images, "conv_squared" for colour ones.
      classes_at_once: see `methods.dc`.
      train_images: real images that train the network after a step; None: the authors', 500 or, of
        CIFAR, 2000.
      network_rate, network_momentum, network_decay, network_batch_size: of its SGD.
      mix: probability of CutMix per batch, in training and in the evaluation; None: 0.5, of MNIST 0
        where stored images show several.
      matching: a name in `augment.by_name`, shared by the real and shown images of a class; None:
        "idc_matching", of MNIST "idc_training" where stored images show several.
    """

    networks: Whole = 2000
    uses: Whole = 100
    learning_rate: Rate | None = None
    momentum: Rate = 0.5
    batch_size: Whole = 64
    most: Whole = 128
    distance: GradientDistance | None = None
    classes_at_once: Whole | None = None
    train_images: Whole | None = None
    network_rate: Rate = 0.01
    network_momentum: Rate = 0.9
    network_decay: Rate = 5e-4
    network_batch_size: Whole = 64
    mix: Share | None = None
    matching: Views | None = None
    augmentation: Views = "idc"
    evaluation_epochs: Whole | None = 1000

    presets = {
        "official": {},
        "cpu": {0: dict(in_turn=False, most=20, learning_rate=lambda ipc: 1e-3 * ipc,
                        train_images=128, width=32, evaluation_width=32,
                        evaluation_epochs=None),
                1: dict(networks=5, uses=100), 2: dict(networks=12, uses=25)},
    }

    def choose(self, at: Site):
        """(data, key, count) -> [K * count] rows, class-major, that the set starts from."""
        return real_rows

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

    def build(self, at: Site) -> dict:
        network, usual = at.convnet(), self.usual(at)
        mix, matching = usual["mix"], at.augmentation(usual["matching"])
        pool = pools.inner_trained_pool(
            network, uses=self.uses, epochs=1, mix=mix, batch_size=self.network_batch_size,
            optimizer=decayed_momentum(self.network_rate, momentum=self.network_momentum,
                                       weight_decay=self.network_decay),
            # Cutout where there is no CutMix.
            augmentation=at.augmentation("idc_training") if mix else matching)
        objective = gradient_matching(
            network, pool, batch_size=self.batch_size, most=self.most,
            distance=usual["distance"], augmentation=matching,
            train_rows=at.rows(usual["train_images"]), classes=self.classes_at_once or "auto")
        sgd = optax.sgd(usual["learning_rate"], momentum=self.momentum)
        return dict(
            self.formed(at, objective, self.networks * self.uses, choose=self.choose(at)),
            optimizer=within_range(sgd, at.normaliser),
            evaluation=at.protocol("idc", schedule="milestones", batch_size=64, cutmix=mix))
