"""LinBa: Remember the Past (Deng and Russakovsky, NeurIPS 2022).

Back-propagation through many steps of gradient descent with momentum, into a few bases that all
classes share and the addresses by which every class combines them to many images.

Differs from the official code:
  - batches of the inner loop are drawn anew for every step, as there; real ones without repetition
    within a class;
  - the library's derivative through checkpointed steps is the exact backward pass there, which
    also runs every step once more;
  - addresses have no penalty (there one is added to the inner loss, where it changes nothing);
  - with many classes all of them are in every real batch (there a random part);
  - the accuracy is that of the last set.
"""

from __future__ import annotations

import dataclasses

import optax

from dd_jax import augment, pools
from dd_jax.data import check_classes, normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import require_at_least_zero
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import Method, Published, default_depth
from dd_jax.methods.unrolling import (
    UnrollingSettings,
    adjoint_of,
    check,
    lighter,
    network_of,
)
from dd_jax.objectives import unrolled
from dd_jax.synthetic import address_rows, addressed, class_start
from dd_jax.train import class_rows, student
from dd_jax.types import RealData

_CITATION = (
    "Z. Deng, O. Russakovsky. Remember the Past: Distilling Datasets into Addressable Memories for "
    "Neural Networks. NeurIPS 2022."
)


@dataclasses.dataclass(frozen=True)
class LinBa(UnrollingSettings):
    """Settings of LinBa, beside those of `UnrollingSettings`; `batch_size` counts per class.

    Every class gives as many real images: where the smallest has fewer than `batch_size`, each
    gives as many as that one has.

    Attributes:
      bases, downsample: of the memory; how many images it addresses follows from `ipc`.
      own_bases: whether every class has bases of its own.
      inner_steps, inner_rate, inner_momentum: of the gradient descent on the memory's images.
      per_class: of these images, for each class in a step, drawn anew.
      memory_rate, memory_momentum: of the SGD on bases and addresses.
      clip: largest norm of their gradient together.
      augmentation: one draw for all steps and real images, a name in `augment.by_name`.
      evaluation_epochs, evaluation_batch_size, evaluation_seeds: of the networks that test the set.
    """

    steps: int = 500_000
    batch_size: int = 64
    bases: int = 16
    downsample: int = 2
    own_bases: bool = False
    inner_steps: int = 150
    inner_rate: float = 0.01
    inner_momentum: float = 0.9
    per_class: int = 32
    memory_rate: float = 0.1
    memory_momentum: float = 0.5
    clip: float = 2.0
    augmentation: str = "none"
    evaluation_epochs: int = 300
    evaluation_batch_size: int = 640
    evaluation_seeds: int = 10


def official(ipc: int) -> LinBa:
    """The official settings for CIFAR-10 at one image per class."""
    return LinBa(ipc=ipc)


def cpu(ipc: int) -> LinBa:
    """Settings for five minutes on one or two CPU cores: short inner loops at a larger rate."""
    return LinBa(ipc=ipc, steps=300, batch_size=26, inner_steps=20, inner_rate=0.02, per_class=2,
                 width=32, evaluation_epochs=100, evaluation_seeds=5)


def recipe(config: LinBa, data: RealData) -> Recipe:
    """LinBa as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
      DataError: a class without images.
    """
    check(config, whole=("ipc", "bases", "downsample", "inner_steps", "per_class",
                         "evaluation_epochs", "evaluation_batch_size", "evaluation_seeds"),
          rates=("inner_rate", "memory_rate", "memory_momentum"))
    check_classes(data, at_least=1)
    for name in ("inner_momentum", "clip"):
        require_at_least_zero(name, getattr(config, name), example=0.9)
    spec = data.spec
    sizes = dict(bases=config.bases, downsample=config.downsample, per_class=config.own_bases)
    rows = address_rows(config.ipc, spec.shape, classes=spec.num_classes, **sizes)
    network, normaliser = network_of(config, spec), normalisers(config.normaliser, data)
    augmentation = augment.by_name(config.augmentation, spec.shape)
    learner = student(
        network, steps=config.inner_steps, augmentation=augmentation, shared_draw=True,
        plan=class_rows(spec.num_classes, min(config.per_class, rows)),
        optimizer=optax.trace(config.inner_momentum), adjoint=adjoint_of(config, plain=False))
    return Recipe(
        method="linba",
        settings=dataclasses.asdict(config),
        initialise=class_start("noise", normaliser=normaliser, ipc=1, kind="one_hot"),
        parameterization=addressed(rows=rows, **sizes),
        objective=unrolled(
            learner, pool=pools.fresh_pool(network), rate=config.inner_rate, per_class=True,
            batch_size=min(config.batch_size, int(data.class_counts.min())),
            augmentation=augmentation),
        optimizer=optax.chain(optax.clip_by_global_norm(config.clip),
                              optax.sgd(config.memory_rate, momentum=config.memory_momentum)),
        steps=config.steps,
        normaliser=normaliser,
        evaluation=protocol(
            name="linba", depth=default_depth(spec, config.depth), width=config.width,
            learning_rate=config.inner_rate, momentum=config.inner_momentum, weight_decay=0.0,
            schedule="constant", epochs=config.evaluation_epochs,
            batch_size=config.evaluation_batch_size, seeds=config.evaluation_seeds),
        lighter=lighter(config, data, recipe, "recursive"),
        citation=_CITATION,
    )


_SOURCE = "LinBa (not re-checked)"
METHOD = Method(
    name="linba",
    title="Remember the Past: Distilling Datasets into Addressable Memories for Neural Networks",
    config=LinBa,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("mnist", 1): Published(98.7, 0.7, _SOURCE),
        ("mnist", 10): Published(99.3, 0.5, _SOURCE),
        ("mnist", 50): Published(99.4, 0.4, _SOURCE),
        ("fashion_mnist", 1): Published(88.5, 0.1, _SOURCE),
        ("fashion_mnist", 10): Published(90.0, 0.7, _SOURCE),
        ("fashion_mnist", 50): Published(91.2, 0.3, _SOURCE),
        ("svhn", 1): Published(87.3, 0.1, _SOURCE),
        ("svhn", 10): Published(89.1, 0.2, _SOURCE),
        ("svhn", 50): Published(89.5, 0.2, _SOURCE),
        ("cifar10", 1): Published(66.4, 0.4, _SOURCE),
        ("cifar10", 10): Published(71.2, 0.4, _SOURCE),
        ("cifar10", 50): Published(73.6, 0.5, _SOURCE),
        ("cifar100", 1): Published(34.0, 0.4, _SOURCE),
        ("cifar100", 10): Published(42.9, 0.7, _SOURCE),
        ("tiny_imagenet", 1): Published(16.0, 0.7, _SOURCE),
    },
    citation=_CITATION,
)
