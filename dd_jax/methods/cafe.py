"""CAFE: Learning to Condense Dataset by Aligning Features (Wang et al., CVPR 2022).

Class means of all layers of a network agree on real and synthetic images, and real images can be
classified by the synthetic centres; a network serves until its accuracy stands still, and is
trained on the synthetic set until it moves. With `augmentation="dsa"` it is CAFE+DSA.

Differs from the official code:
  - the number of steps is fixed, `networks * uses`, whereas networks come and go by their accuracy:
    the rate is halved after 60, 80 and 90 per cent of the steps (there after 1200, 1600 and 1800 of
    2000 networks), and `uses` only says how many steps a network is expected to serve;
  - both loops end at the latest after `max_uses` steps and `max_epochs` passes (there never);
  - an accuracy is the plain mean over classes (there a part of the one before leaks into it), on
    images drawn with replacement from those of the step (there on new images every time);
  - cross-entropy of real images, which has no derivative in the set, is left out;
  - every block but the last has the weight of the first ones, whatever the depth (there 3);
  - CIFAR-100 is standardised by its own mean and deviation (there by those of CIFAR-10);
  - keys instead of seeds from the clock, and any data, image size and number of classes;
  - a class smaller than the real batch is gone through again.
"""

from __future__ import annotations

import dataclasses

import optax

from dd_jax import augment, nets
from dd_jax.data import normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
)
from dd_jax.objectives.layer_matching import layer_matching
from dd_jax.objectives.matching import require_several_classes
from dd_jax.pools.plateau import plateau_pool
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.types import RealData

_CITATION = (
    "K. Wang, B. Zhao, X. Peng, Z. Zhu, S. Yang, S. Wang, G. Huang, H. Bilen, X. Wang, Y. You. "
    "CAFE: Learning to Condense Dataset by Aligning Features. CVPR 2022."
)
_HALVED = (0.6, 0.8, 0.9)  # shares of the steps after which the rate is halved


@dataclasses.dataclass(frozen=True)
class CAFE:
    """Settings of CAFE; the defaults are the official ones.

    Attributes:
      ipc: images per class.
      networks, uses: the outer steps are `networks * uses`, as for `uses` steps with each network;
        with official windows two networks of width 32 served 25 and 16 on Fashion-MNIST.
      max_uses: steps after which a network is replaced in any case.
      max_epochs: passes over the set after which a training of a network ends in any case.
      window: accuracies in a full window.
      still: a network is replaced once the range of its window is below this.
      moved: a training ends once the range of its own window is above this.
      measure_size: real images per class and step that accuracies are measured on.
      learning_rate, momentum: of the SGD on the pixels; the rate is halved three times.
      batch_size: real images per class and step.
      early_weight, last_weight: of the ReLU outputs of all blocks but the last, and of the last.
      feature_weight: of the features, which the official code counts twice.
      discrimination: of the cross-entropies of real images by the synthetic centres, summed.
      network_rate, network_batch_size: of the SGD that trains networks.
      width, depth, norm: of the ConvNets; depth None follows the image size. No batch norm.
      start: "real", "noise" or "class_means".
      normaliser: a name in `data.normalisers`.
      augmentation: a name in `augment.by_name`: shared by the real and synthetic images of a class,
        and per image when networks are trained on the set, here and in the evaluation; "dsa" is
        CAFE+DSA, "dsa_digits" has no flip.
      evaluation_width: width of the networks that test the set.
      evaluation_epochs: epochs they are trained for; None: 601, or 1001 with an augmentation.
    """

    ipc: int = 1
    networks: int = 2000
    uses: int = 20
    max_uses: int = 100
    max_epochs: int = 100
    window: int = 10
    still: float = 0.04
    moved: float = 0.03
    measure_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.5
    batch_size: int = 256
    early_weight: float = 0.1
    last_weight: float = 1.0
    feature_weight: float = 2.0
    discrimination: float = 0.01
    network_rate: float = 0.01
    network_batch_size: int = 256
    width: int = 128
    depth: int | None = None
    norm: str = "instance"
    start: str = "noise"
    normaliser: str = "standardise"
    augmentation: str = "none"
    evaluation_width: int = 128
    evaluation_epochs: int | None = None


def official(ipc: int) -> CAFE:
    """The settings of the official code."""
    return CAFE(ipc=ipc)


def cpu(ipc: int) -> CAFE:
    """Settings for five minutes on two CPU cores: narrow networks, fewer images and passes.

    Accuracies are measured on a quarter of the images: their noise is twice as large, and so are
    the ranges that it is compared with.
    """
    return CAFE(ipc=ipc, networks=60, uses=10, max_uses=20, max_epochs=20, window=5, still=0.08,
                moved=0.06, measure_size=32, batch_size=64, width=32, evaluation_width=32)


def _check(config: CAFE, data: RealData) -> None:
    require_positive(config, "ipc", "networks", "uses", "max_uses", "max_epochs", "window",
                     "measure_size", "batch_size", "network_batch_size", "width",
                     "evaluation_width")
    require_rate(config, "learning_rate", "momentum", "network_rate", "early_weight",
                 "last_weight", "feature_weight", "discrimination")
    if config.evaluation_epochs is not None:
        require_positive(config, "evaluation_epochs")
    if config.norm == "batch":
        raise ConfigError("norm is 'batch', but layers are matched class by class",
                          fix="pass norm='instance'")
    require_several_classes(data.spec.num_classes,
                            "accuracies over one never move, and its discrimination is zero",
                            instead="use method 'dm'")
    check_start(config.start, data, config.ipc)


def recipe(config: CAFE, data: RealData) -> Recipe:
    """CAFE as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be, or data of one class.
    """
    _check(config, data)
    spec = data.spec
    depth = default_depth(spec, config.depth)
    normaliser = normalisers(config.normaliser, data)
    network = nets.convnet(spec, depth=depth, width=config.width, norm=config.norm)
    augmentation = augment.by_name(config.augmentation, spec.shape)
    pool = plateau_pool(
        network, max_uses=config.max_uses, max_epochs=config.max_epochs, window=config.window,
        still=config.still, moved=config.moved, optimizer=optax.sgd(config.network_rate),
        batch_size=config.network_batch_size, augmentation=augmentation,
    )
    steps = config.networks * config.uses
    rate = optax.piecewise_constant_schedule(
        config.learning_rate, {round(share * steps): 0.5 for share in _HALVED})
    epochs = config.evaluation_epochs or (601 if config.augmentation == "none" else 1001)
    return Recipe(
        method="cafe",
        settings=dataclasses.asdict(config),
        initialise=class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind="one_hot"),
        parameterization=pixels(labels="fixed"),
        objective=layer_matching(
            network, pool, weights=(config.early_weight,) * (depth - 1) + (config.last_weight,),
            feature_weight=config.feature_weight, discrimination=config.discrimination,
            batch_size=config.batch_size, measure_size=config.measure_size,
            augmentation=augmentation,
        ),
        optimizer=optax.sgd(rate, momentum=config.momentum),
        steps=steps,
        normaliser=normaliser,
        evaluation=protocol(name="dc", depth=depth, width=config.evaluation_width, norm=config.norm,
                            epochs=epochs, augmentation=config.augmentation),
        citation=_CITATION,
    )


_SOURCE = "CAFE (without augmentation), as tabulated in DANCE"
METHOD = Method(
    name="cafe",
    title="CAFE: Learning to Condense Dataset by Aligning Features",
    config=CAFE,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("fashion_mnist", 1): Published(77.1, 0.9, _SOURCE),
        ("fashion_mnist", 10): Published(83.0, 0.4, _SOURCE),
        ("fashion_mnist", 50): Published(84.8, 0.4, _SOURCE),
        ("cifar10", 1): Published(30.3, 1.1, _SOURCE),
        ("cifar10", 10): Published(46.3, 0.6, _SOURCE),
        ("cifar10", 50): Published(55.5, 0.6, _SOURCE),
        ("cifar100", 1): Published(12.9, 0.3, _SOURCE),
        ("cifar100", 10): Published(27.8, 0.3, _SOURCE),
        ("cifar100", 50): Published(37.9, 0.3, _SOURCE),
    },
    citation=_CITATION,
)
