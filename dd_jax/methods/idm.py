"""IDM: Improved Distribution Matching for Dataset Condensation (Zhao et al., CVPR 2023).

DM with images of four parts, with networks from a queue of all degrees of training, and with the
cross-entropy of the synthetic images under the same network, the more the better that network is.

Differs from the official code:
  - the defaults are the arguments that the authors publish for CIFAR-10, not those of the script;
  - a set is the last one, not the one of the best test accuracy over time;
  - training accuracies are forgotten every `forget` iterations, where the script evaluates;
  - the images that a network is trained on are drawn without replacement within an iteration;
  - shown images are ordered image after image (there patch after patch);
  - preset "cpu" steps once for all classes; "official" once per class and step, as there, where a
    class moves on by its momentum while the others have their turn;
  - "ipc=1" with factor 1 takes any real images; the script's list of easy ones is not there.
"""

from __future__ import annotations

import dataclasses

import optax

from dd_jax import augment, nets
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.formed import formed, stepped
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
)
from dd_jax.objectives import distribution_matching, mean_features
from dd_jax.pools.queue import accuracy_percent, queue_pool
from dd_jax.synthetic import check_start
from dd_jax.types import RealData

_CITATION = (
    "G. Zhao, G. Li, Y. Qin, Y. Yu. Improved Distribution Matching for Dataset Condensation. "
    "CVPR 2023."
)


@dataclasses.dataclass(frozen=True)
class IDM:
    """Settings of IDM; the defaults are the official ones for CIFAR-10 at 10 images per class.

    Attributes:
      ipc: stored images per class; networks see ipc * factor^2.
      factor: patches per side of a stored image.
      iterations: steps of every class.
      learning_rate, momentum: of the SGD on the pixels, in model space.
      in_turn: a step of the optimiser for every class, instead of one for all.
      batch_size: real images per class and step.
      label_weight: of the cross-entropy, times the network's training accuracy in percent.
      queue_start, queue_capacity, queue_every: networks in the queue at the start and at the most,
        and iterations after which a new one enters.
      queue_trained, queue_steps, queue_batch_size: networks trained in every iteration, steps of
        each and real images per step, all of them different: together at most the whole set.
      forget: iterations after which training accuracies are counted anew.
      width, depth: of the ConvNets; depth None follows the image size.
      augmentation: a name in `augment.by_name`, shared by the real and shown images of a class and
        used when networks are trained on the set; "dsa_digits" has no flip.
      evaluation_width, evaluation_epochs: of the networks that test the set.
    """

    ipc: int = 10
    factor: int = 2
    iterations: int = 20_000
    learning_rate: float = 0.2
    momentum: float = 0.5
    in_turn: bool = True
    batch_size: int = 256
    label_weight: float = 0.5
    queue_start: int = 3
    queue_capacity: int = 100
    queue_every: int = 30
    queue_trained: int = 2
    queue_steps: int = 10
    queue_batch_size: int = 256
    forget: int = 100
    width: int = 128
    depth: int | None = None
    augmentation: str = "dsa"
    evaluation_width: int = 128
    evaluation_epochs: int = 1001


def official(ipc: int) -> IDM:
    """The authors' arguments for CIFAR-10."""
    if ipc == 1:
        return IDM(ipc=1, batch_size=5000, queue_every=5)
    if ipc < 50:
        return IDM(ipc=ipc)
    return IDM(ipc=ipc, label_weight=0.1, forget=500)


def cpu(ipc: int) -> IDM:
    """Settings for five minutes on two CPU cores: narrow networks, one step for all classes."""
    return IDM(ipc=ipc, iterations=1000 if ipc == 1 else 500, in_turn=False, batch_size=64,
               queue_every=30, queue_capacity=20, queue_trained=1, queue_steps=5,
               queue_batch_size=64, width=32, evaluation_width=32,
               evaluation_epochs=1001 if ipc == 1 else 301)


def recipe(config: IDM, data: RealData) -> Recipe:
    """IDM as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "ipc", "factor", "iterations", "batch_size", "queue_start",
                     "queue_capacity", "queue_every", "queue_trained", "queue_steps",
                     "queue_batch_size", "forget", "width", "evaluation_width",
                     "evaluation_epochs")
    require_rate(config, "learning_rate", "momentum", "label_weight")
    check_start("real", data, config.ipc * config.factor**2)
    spec, count = data.spec, data.labels.shape[0]
    trained_on = config.queue_trained * config.queue_steps * config.queue_batch_size
    if trained_on > count:
        raise ConfigError(
            f"queue_trained * queue_steps * queue_batch_size is {trained_on}, but the set has "
            f"{count} images", fix="pass a smaller queue_batch_size or queue_steps",
        )
    depth = default_depth(spec, config.depth)
    network = nets.convnet(spec, depth=depth, width=config.width)
    pool = queue_pool(
        network, start=config.queue_start, capacity=config.queue_capacity,
        every=config.queue_every, trained=config.queue_trained, steps=config.queue_steps,
        batch_size=config.queue_batch_size, forget=config.forget,
    )
    objective = distribution_matching(
        network, pool, mean_features(), batch_size=config.batch_size,
        augmentation=augment.by_name(config.augmentation, spec.shape),
        supervision=lambda state: config.label_weight * accuracy_percent(state),
        train_rows=trained_on,
    )
    return Recipe(
        **formed(data, ipc=config.ipc, factor=config.factor, interpolation="bilinear"),
        **stepped(objective, spec, iterations=config.iterations, in_turn=config.in_turn),
        method="idm",
        settings=dataclasses.asdict(config),
        optimizer=optax.sgd(config.learning_rate, momentum=config.momentum),
        evaluation=protocol(name="dc", depth=depth, width=config.evaluation_width,
                            epochs=config.evaluation_epochs, augmentation=config.augmentation),
        citation=_CITATION,
    )


_SOURCE = "IDM, as tabulated in DANCE"
METHOD = Method(
    name="idm",
    title="Improved Distribution Matching for Dataset Condensation",
    config=IDM,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(45.6, 0.7, _SOURCE),
        ("cifar10", 10): Published(58.6, 0.1, _SOURCE),
        ("cifar10", 50): Published(67.5, 0.1, _SOURCE),
        ("cifar100", 1): Published(20.1, 0.3, _SOURCE),
        ("cifar100", 10): Published(45.1, 0.1, _SOURCE),
        ("cifar100", 50): Published(50.0, 0.2, _SOURCE),
    },
    citation=_CITATION,
)
