"""ATT: Dataset Distillation by Automatic Training Trajectories (Liu et al., ECCV 2024).

MTT whose student is compared where it is nearest to the expert's target, after a number of steps
that is chosen anew each time; and a moving average of the images.

Differs from the official code: as MTT and FTD do, see there; experts have batches of 512, as there,
and the nearest step is looked for among all (there only below a distance of 10,000).
"""

from __future__ import annotations

import dataclasses

from dd_jax.distill.recipe import Recipe
from dd_jax.methods.record import Method, Published, budget
from dd_jax.methods.trajectory import (
    TrajectorySettings,
    matching,
    narrow,
    student_of,
    trajectory_recipe,
)
from dd_jax.objectives.trajectory_loss import nearest
from dd_jax.train.segments import StartEpochs
from dd_jax.types import RealData

_CITATION = (
    "D. Liu, J. Gu, H. Cao, C. Trinitis, M. Schulz. Dataset Distillation by Automatic Training "
    "Trajectories. ECCV 2024."
)
# Images per class -> the official settings for CIFAR-10.
_BUDGETS = {
    1: dict(inner_steps=80, span=4, max_start=2, rate_rate=1e-7, steps=6000, average=0.9999),
    10: dict(inner_steps=30, max_start=20, image_rate=1e4, rate_rate=1e-4, steps=60_000,
             average=0.9999),
    50: dict(inner_steps=50, max_start=40, rate_rate=1e-5, rate=0.001, steps=1_000_000),
}


@dataclasses.dataclass(frozen=True)
class ATT(TrajectorySettings):
    """Settings of ATT, those in `TrajectorySettings`, where `inner_steps` are the most, and:

    Attributes:
      average: decay of the moving average that is the product.
    """

    expert_batch_size: int = 512
    average: float = 0.999


def official(ipc: int) -> ATT:
    """The official settings for CIFAR-10."""
    return ATT(ipc=ipc, **budget(_BUDGETS, ipc))


def cpu(ipc: int) -> ATT:
    """Settings for some minutes on two CPU cores, the experts' training apart.

    They may be MTT's experts: give their folder as `experts`.
    """
    return narrow(official(ipc), average=0.99, expert_batch_size=256)


def recipe(config: ATT, data: RealData) -> Recipe:
    """ATT as a composition of the library's parts; its experts are trained by `prepare`.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be, experts that do not fit it.
    """
    learner, starts = student_of(config, data), StartEpochs(0, config.max_start)
    return trajectory_recipe(
        config, data, method="att", citation=_CITATION, learner=learner, starts=starts,
        parts=matching(config, learner, starts, loss=nearest()), build=recipe,
        average=config.average,
    )


_SOURCE = "ATT, figures of the official repository"
METHOD = Method(
    name="att",
    title="Dataset Distillation by Automatic Training Trajectories",
    config=ATT,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(48.3, 1.0, _SOURCE),
        ("cifar10", 10): Published(67.7, 0.6, _SOURCE),
        ("cifar10", 50): Published(74.5, 0.4, _SOURCE),
        ("cifar100", 1): Published(26.1, 0.3, _SOURCE),
        ("cifar100", 10): Published(44.2, 0.5, _SOURCE),
        ("cifar100", 50): Published(51.2, 0.3, _SOURCE),
        ("tiny_imagenet", 1): Published(11.0, 0.5, _SOURCE),
        ("tiny_imagenet", 10): Published(25.8, 0.4, _SOURCE),
    },
    citation=_CITATION,
)
