"""DATM: Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching (Guo et
al., ICLR 2024).

FTD's experts; segments start in a range of epochs that follows the number of images (early epochs
teach what is easy) and widens; images start as some that an expert classifies rightly, and their
labels, the experts' logits at first, are learned.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - images are chosen among a random part of each class (there among all, in random order); labels
    start from the experts that classify an image rightly, or from all where none does (there this
    is not a number);
  - labels are stored as logarithms of probabilities, which are logits of the same softmax;
  - pixels are standardised by default (whitened in every official setting): `normaliser="zca"`.
"""

from __future__ import annotations

import dataclasses

import optax

from dd_jax.distill.recipe import Recipe
from dd_jax.methods.ftd import flat_training
from dd_jax.methods.record import Method, Published, budget, require_rate
from dd_jax.methods.trajectory import (
    TrajectorySettings,
    narrow,
    protocol_of,
    rate_optimizer,
    student_of,
    trajectory_recipe,
    with_rate,
)
from dd_jax.objectives.trajectory_matching import trajectory_matching
from dd_jax.synthetic import pixels
from dd_jax.train.expert_starts import classified_start
from dd_jax.train.segments import Segments, StartEpochs
from dd_jax.transforms.rate_space import skipped_above
from dd_jax.types import RealData

_CITATION = (
    "Z. Guo, K. Wang, G. Cazenavette, H. Li, K. Zhang, Y. You. Towards Lossless Dataset "
    "Distillation via Difficulty-Aligned Trajectory Matching. ICLR 2024."
)
# Images per class -> the official settings for CIFAR-10.
_BUDGETS = {
    1: dict(batch_size=10, max_start=4, rate_rate=1e-7, label_rate=5.0, threshold=1.1),
    10: dict(batch_size=100, first_max_start=10, max_start=20, growth_steps=1000),
    50: dict(batch_size=500, image_rate=1000.0, first_max_start=20, max_start=40,
             growth_steps=2000),
    500: dict(inner_steps=40, batch_size=1000, image_rate=50.0, label_rate=10.0, min_start=40,
              max_start=60),
    1000: dict(inner_steps=100, batch_size=1000, image_rate=50.0, label_rate=10.0, min_start=40,
               max_start=60),
}
_LEAST = 1e-12  # of a label's probability: experts' logits are kept as they are


@dataclasses.dataclass(frozen=True)
class DATM(TrajectorySettings):
    """Settings of DATM, those in `TrajectorySettings` and:

    Attributes:
      min_start: segments start at this epoch or later.
      first_max_start, growth_steps: `max_start` of the first step, and how many steps it takes to
        grow to its end; None and 0 for no growth.
      classified: start from images that an expert classifies rightly, with experts' labels; False
        starts as `start` says, with hard labels.
      label_rate: learning rate of the labels' SGD of momentum 0.9.
      threshold: steps of a larger loss move nothing.
      radius, share: of the experts' training, see FTD.
    """

    steps: int = 10_000
    inner_steps: int = 80
    rate_rate: float = 1e-5
    expert_epochs: int = 100
    min_start: int = 0
    first_max_start: int | None = None
    growth_steps: int = 0
    classified: bool = True
    label_rate: float = 2.0
    threshold: float = 1.0
    radius: float = 0.01
    share: float = 0.3


def official(ipc: int) -> DATM:
    """The official settings for CIFAR-10."""
    return DATM(ipc=ipc, **budget(_BUDGETS, ipc))


def cpu(ipc: int) -> DATM:
    """Settings for some minutes on two CPU cores, the experts' training apart.

    They may be FTD's experts: give their folder as `experts`.
    """
    growth = {} if ipc == 1 else dict(first_max_start=2, growth_steps=100)
    return narrow(official(ipc), batch_size=None, min_start=0, **growth)


def recipe(config: DATM, data: RealData) -> Recipe:
    """DATM as a composition of the library's parts; its experts are trained by `prepare`.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be, experts that do not fit it.
    """
    require_rate(config, "label_rate", "threshold")
    learner = student_of(config, data)
    starts = StartEpochs(config.min_start, config.max_start, config.first_max_start,
                         config.growth_steps)

    def parts(trajectories, normaliser):
        segments = Segments(trajectories, config.span)
        fields = {"objective": trajectory_matching(learner, segments, starts=starts)}
        if config.classified:
            start = classified_start(segments, learner.network, normaliser=normaliser,
                                     ipc=config.ipc)
            fields["initialise"] = with_rate(start, config.rate)
        return fields

    optimizers = {
        "images": optax.sgd(config.image_rate, momentum=config.momentum),
        "labels": optax.sgd(config.label_rate, momentum=0.9),
        "learning_rate": rate_optimizer(config),
    }
    evaluation = protocol_of(config, data)
    return trajectory_recipe(
        config, data, method="datm", citation=_CITATION, learner=learner, starts=starts,
        parts=parts, build=recipe, training=flat_training(config),
        parameterization=pixels(labels="soft", least=_LEAST), label_kind="probabilities",
        optimizer={name: skipped_above(each, config.threshold)
                   for name, each in optimizers.items()},
        evaluation=evaluation.varied(batch_size=128),
    )


_SOURCE = "DATM, figure of the official repository, with ZCA"
METHOD = Method(
    name="datm",
    title="Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching",
    config=DATM,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(46.9, 0.5, _SOURCE),
        ("cifar10", 10): Published(66.8, 0.2, _SOURCE),
        ("cifar10", 50): Published(76.1, 0.3, _SOURCE),
        ("cifar10", 500): Published(83.5, 0.2, _SOURCE),
        ("cifar10", 1000): Published(85.5, 0.4, _SOURCE),
        ("cifar100", 1): Published(27.9, 0.2, _SOURCE),
        ("cifar100", 10): Published(47.2, 0.4, _SOURCE),
        ("cifar100", 50): Published(55.0, 0.2, _SOURCE),
        ("tiny_imagenet", 1): Published(17.1, 0.3, _SOURCE),
        ("tiny_imagenet", 10): Published(31.1, 0.3, _SOURCE),
        ("tiny_imagenet", 50): Published(39.7, 0.3, _SOURCE),
    },
    citation=_CITATION,
)
