"""DC: Dataset Condensation with Gradient Matching (Zhao, Mopuri and Bilen, ICLR 2021).

Class-wise gradients on real and synthetic images agree, row by row, along the training of random
networks on the synthetic set; SGD on the pixels.

Differs from the official code:
  - keys instead of seeds from the clock: every run can be repeated;
  - any number of images per class: the loops are those of the largest published budget below;
  - the augmentation of the evaluation, which the official code has for MNIST and for batch
    normalisation, is a setting and "none" by default;
  - with batch normalisation the running statistics are those of `nets`, which keep 0.1 of the old
    (there 0.9), they are measured on 16 images per class of the matching batch (there drawn for
    it), and the network's training goes on from its own;
  - a class smaller than the real batch is gone through again (the official code takes fewer).
"""

from __future__ import annotations

import dataclasses

import optax

from dd_jax import augment, nets, pools
from dd_jax.data import normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
)
from dd_jax.objectives import gradient_matching
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.types import RealData

_CITATION = (
    "B. Zhao, K. R. Mopuri, H. Bilen. Dataset Condensation with Gradient Matching. ICLR 2021."
)
# Images per class -> (matching steps per network, epochs of its training between two of them).
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


@dataclasses.dataclass(frozen=True)
class DC:
    """Settings of DC; the defaults are the official ones for one image per class.

    Attributes:
      ipc: images per class.
      networks: random networks, one after another.
      uses: matching steps with each of them.
      epochs: passes over the synthetic set that train it after each but the last.
      learning_rate, momentum: of the SGD on the pixels.
      batch_size: real images per class and step.
      network_rate, network_batch_size: of the SGD that trains networks.
      distance: a name in `objectives.gradient_distances`.
      width, depth, norm: of the ConvNets; depth None follows the image size. The networks of the
        test have the same depth and norm.
      start: "real", "noise" or "class_means".
      normaliser: a name in `data.normalisers`.
      augmentation: a name in `augment.by_name`: shared by the real and synthetic images of a class,
        and per image when networks are trained on the set, here and in the evaluation.
      evaluation_width, evaluation_epochs: of the networks that test the set.
    """

    ipc: int = 1
    networks: int = 1000
    uses: int = 1
    epochs: int = 1
    learning_rate: float = 0.1
    momentum: float = 0.5
    batch_size: int = 256
    network_rate: float = 0.01
    network_batch_size: int = 256
    distance: str = "row_cosine"
    width: int = 128
    depth: int | None = None
    norm: str = "instance"
    start: str = "noise"
    normaliser: str = "standardise"
    augmentation: str = "none"
    evaluation_width: int = 128
    evaluation_epochs: int = 301


def loops(ipc: int, table: dict[int, tuple[int, int]] = LOOPS) -> dict[str, int]:
    """The official `uses` and `epochs` of this budget, or of the largest one below it."""
    uses, epochs = table[max(known for known in table if known <= max(ipc, 1))]
    return {"uses": uses, "epochs": epochs}


def official(ipc: int) -> DC:
    """The settings of the official code."""
    return DC(ipc=ipc, **loops(ipc))


def narrow(config: DC, *, networks: int, uses: int, epochs: int) -> DC:
    """A config for two CPU cores: narrow networks, smaller real batches, shorter loops.

    With several images per class there is time for few steps only: at a higher rate, and from real
    images, since noise is not left behind so soon.
    """
    small = dataclasses.replace(config, networks=networks, uses=uses, epochs=epochs, batch_size=64,
                                width=32, evaluation_width=32)
    if config.ipc == 1:
        return small
    return dataclasses.replace(small, learning_rate=0.5, start="real", evaluation_epochs=301)


def cpu(ipc: int) -> DC:
    """Settings for five minutes on two CPU cores."""
    return narrow(official(ipc), **cpu_loops(ipc))


def cpu_loops(ipc: int) -> dict[str, int]:
    """Loops that fit into five minutes at width 32."""
    if ipc == 1:
        return {"networks": 600, "uses": 1, "epochs": 1}
    return {"networks": 25, "uses": 10, "epochs": 10}


def matching_recipe(config: DC, data: RealData, *, method: str, citation: str, class_wise=True):
    """The recipe of DC and of those that vary it.

    Args:
      config: the settings.
      data: the real training set.
      method, citation: of the paper.
      class_wise: see `objectives.gradient_matching`.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "ipc", "networks", "uses", "epochs", "batch_size",
                     "network_batch_size", "width", "evaluation_width", "evaluation_epochs")
    require_rate(config, "learning_rate", "momentum", "network_rate")
    check_start(config.start, data, config.ipc)
    spec = data.spec
    depth = default_depth(spec, config.depth)
    normaliser = normalisers(config.normaliser, data)
    network = nets.convnet(spec, depth=depth, width=config.width, norm=config.norm)
    augmentation = augment.by_name(config.augmentation, spec.shape)
    pool = pools.inner_trained_pool(
        network, uses=config.uses, epochs=config.epochs, optimizer=optax.sgd(config.network_rate),
        batch_size=config.network_batch_size, augmentation=augmentation,
    )
    return Recipe(
        method=method,
        settings=dataclasses.asdict(config),
        initialise=class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind="one_hot"),
        parameterization=pixels(labels="fixed"),
        objective=gradient_matching(
            network, pool, batch_size=config.batch_size, distance=config.distance,
            augmentation=augmentation, class_wise=class_wise,
        ),
        optimizer=optax.sgd(config.learning_rate, momentum=config.momentum),
        steps=config.networks * config.uses,
        normaliser=normaliser,
        evaluation=protocol(name="dc", depth=depth, width=config.evaluation_width, norm=config.norm,
                            epochs=config.evaluation_epochs, augmentation=config.augmentation),
        citation=citation,
    )


def recipe(config: DC, data: RealData) -> Recipe:
    """DC as a composition of the library's parts, see `matching_recipe`."""
    return matching_recipe(config, data, method="dc", citation=_CITATION)


_SOURCE = "DC, means of the official repository, deviations as tabulated in DANCE"
METHOD = Method(
    name="dc",
    title="Dataset Condensation with Gradient Matching",
    config=DC,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("fashion_mnist", 1): Published(70.5, 0.6, _SOURCE),
        ("fashion_mnist", 10): Published(82.3, 0.4, _SOURCE),
        ("fashion_mnist", 50): Published(83.6, 0.4, _SOURCE),
        ("cifar10", 1): Published(28.3, 0.5, _SOURCE),
        ("cifar10", 10): Published(44.9, 0.5, _SOURCE),
        ("cifar10", 50): Published(53.9, 0.5, _SOURCE),
        ("cifar100", 1): Published(12.8, 0.3, _SOURCE),
        ("cifar100", 10): Published(25.2, 0.3, _SOURCE),
    },
    citation=_CITATION,
)
