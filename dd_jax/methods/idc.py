"""IDC: Dataset Condensation via Efficient Synthetic-Data Parameterization (Kim et al., ICML 2022).

Every stored image shows factor^2 images; the gradients of convolution weights on real and shown
images agree, class by class, along the training of random networks on real images. IDC-I is IDC of
factor 1.

Differs from the official code:
  - the images live in model space; SGD, its rate and the range [0, 1] are those of pixels all the
    same, and images are cut to the range after every step (there once per network);
  - the distance and the rate follow from the number of channels (there from the data set's name):
    grey images have those of Fashion-MNIST, colour ones those of CIFAR-10; MNIST's rate is 1e-4 *
    ipc / 10 and its matching for factor 2 has no cutout (`matching="idc_training"`);
  - ImageNet's networks, their pre-training and its augmentation are not offered;
  - shown images are ordered image after image (there patch after patch);
  - preset "cpu" steps once for all classes; "official" once per class and step, as there, where
    a class of shown images moves on by its momentum while the others have their turn;
  - evaluation: the accuracy of the last epoch, not the best one on the test set; its augmentation
    has flips whatever the data (give "idc_digits" for digits) and no cutout even without CutMix.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from dd_jax import augment, nets, pools
from dd_jax.data import real_rows
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import require_probability
from dd_jax.evaluate.protocol import Protocol, protocol
from dd_jax.methods.formed import formed, stepped
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
)
from dd_jax.objectives import gradient_matching
from dd_jax.synthetic import check_start
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.transforms.pixel_space import within_range
from dd_jax.types import DataSpec, RealData

_CITATION = (
    "J.-H. Kim, J. Kim, S. J. Oh, S. Yun, H. Song, J. Jeong, J.-W. Ha, H. O. Song. Dataset "
    "Condensation via Efficient Synthetic-Data Parameterization. ICML 2022."
)


@dataclasses.dataclass(frozen=True)
class IDC:
    """Settings of IDC; the defaults are the official ones for small images.

    Attributes:
      ipc: stored images per class; networks see ipc * factor^2.
      factor: patches per side of a stored image; 1 is IDC-I.
      networks: random networks, one after another.
      uses: matching steps with each of them.
      learning_rate, momentum: of the SGD on pixels in [0, 1]; None: 1e-4 * ipc / 10 * (H / 32)^2
        for grey images, 5e-3 * ipc / 10 for colour ones.
      in_turn: a step of the optimiser for every class, instead of one for all.
      batch_size: real images per class and step.
      most: shown images per class and step, a random choice of more.
      distance: None: "conv_absolute" for grey images, "conv_squared" for colour ones.
      train_images: real images that the network is trained on after a step, at most all; None: 500
        for grey images, 2000 for colour ones.
      network_rate, network_momentum, network_decay, network_batch_size: of its SGD.
      mix: probability of CutMix per batch, in training and in the evaluation.
      width, depth: of the ConvNets; depth None follows the image size.
      matching: a name in `augment.by_name`, shared by the real and shown images of a class.
      augmentation: another one, of the evaluation; "idc_digits" has no flip.
      evaluation_width, evaluation_epochs: of the networks that test the set.
    """

    ipc: int = 1
    factor: int = 2
    networks: int = 2000
    uses: int = 100
    learning_rate: float | None = None
    momentum: float = 0.5
    in_turn: bool = True
    batch_size: int = 64
    most: int = 128
    distance: str | None = None
    train_images: int | None = None
    network_rate: float = 0.01
    network_momentum: float = 0.9
    network_decay: float = 5e-4
    network_batch_size: int = 64
    mix: float = 0.5
    width: int = 128
    depth: int | None = None
    matching: str = "idc_matching"
    augmentation: str = "idc"
    evaluation_width: int = 128
    evaluation_epochs: int = 1000


def official(ipc: int) -> IDC:
    """The settings of the official code."""
    return IDC(ipc=ipc)


def narrow(config: IDC) -> IDC:
    """A config for two CPU cores: narrow networks, one step for all classes, a higher rate."""
    return dataclasses.replace(
        config, networks=5 if config.ipc == 1 else 3, uses=100, in_turn=False, most=20,
        learning_rate=1e-3 * config.ipc, train_images=128, width=32, evaluation_width=32,
        evaluation_epochs=1000 if config.ipc == 1 else 200,
    )


def cpu(ipc: int) -> IDC:
    """Settings for five minutes on two CPU cores."""
    return narrow(official(ipc))


def _rate(config: IDC, spec: DataSpec) -> float:
    if config.learning_rate is not None:
        return config.learning_rate
    if spec.shape[-1] == 1:
        return 1e-4 * config.ipc / 10 * (spec.shape[0] / 32) ** 2
    return 5e-3 * config.ipc / 10


def _check(config: IDC, data: RealData) -> None:
    require_positive(config, "ipc", "factor", "networks", "uses", "batch_size", "most", "width",
                     "network_batch_size", "evaluation_width", "evaluation_epochs")
    require_rate(config, "momentum", "network_rate", "network_momentum", "network_decay")
    require_probability("mix", config.mix)
    if config.learning_rate is not None:
        require_rate(config, "learning_rate")
    if config.train_images is not None:
        require_positive(config, "train_images")
    check_start("real", data, config.ipc * config.factor**2)


def evaluation(config: Any, depth: int) -> Protocol:
    """IDC's test of a set, by evaluation_width, evaluation_epochs, augmentation and mix."""
    return protocol(
        name="idc", depth=depth, width=config.evaluation_width, schedule="milestones",
        epochs=config.evaluation_epochs, batch_size=64, augmentation=config.augmentation,
        cutmix=config.mix,
    )


def recipe(
    config: IDC,
    data: RealData,
    *,
    choose: Callable[[RealData, jax.Array, int], jax.Array] = real_rows,
    method: str = "idc",
    citation: str = _CITATION,
) -> Recipe:
    """IDC as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.
      choose: (data, key, count) -> [K * count] rows, class-major, that the set starts from.
      method, citation: of a paper that varies it.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    _check(config, data)
    spec, grey = data.spec, data.spec.shape[-1] == 1
    depth = default_depth(spec, config.depth)
    stored = formed(data, ipc=config.ipc, factor=config.factor, choose=choose)
    network = nets.convnet(spec, depth=depth, width=config.width)
    training = "idc_training" if config.mix else "idc_matching"  # cutout where there is no CutMix
    trainer = decayed_momentum(config.network_rate, momentum=config.network_momentum,
                               weight_decay=config.network_decay)
    pool = pools.inner_trained_pool(
        network, uses=config.uses, epochs=1, optimizer=trainer, mix=config.mix,
        batch_size=config.network_batch_size, augmentation=augment.by_name(training, spec.shape),
    )
    train_images = config.train_images or (500 if grey else 2000)
    objective = gradient_matching(
        network, pool, batch_size=config.batch_size, most=config.most,
        distance=config.distance or ("conv_absolute" if grey else "conv_squared"),
        augmentation=augment.by_name(config.matching, spec.shape),
        train_rows=min(train_images, data.labels.shape[0]),
    )
    sgd = optax.sgd(_rate(config, spec), momentum=config.momentum)
    iterations = config.networks * config.uses
    return Recipe(
        **stored,
        **stepped(objective, spec, iterations=iterations, in_turn=config.in_turn),
        method=method,
        settings=dataclasses.asdict(config),
        optimizer=within_range(sgd, stored["normaliser"]),
        evaluation=evaluation(config, depth),
        citation=citation,
    )


_SOURCE = "IDC, means of the official repository, deviations as tabulated in DANCE"
METHOD = Method(
    name="idc",
    title="Dataset Condensation via Efficient Synthetic-Data Parameterization",
    config=IDC,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("fashion_mnist", 1): Published(81.0, 0.2, _SOURCE),
        ("fashion_mnist", 10): Published(86.0, 0.3, _SOURCE),
        ("fashion_mnist", 50): Published(86.2, 0.2, _SOURCE),
        ("cifar10", 1): Published(50.6, 0.4, _SOURCE),
        ("cifar10", 10): Published(67.5, 0.5, _SOURCE),
        ("cifar10", 50): Published(74.5, 0.1, _SOURCE),
        ("cifar100", 10): Published(45.1, None, _SOURCE),
    },
    citation=_CITATION,
)
