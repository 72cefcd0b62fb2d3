"""MTT: Dataset Distillation by Matching Training Trajectories (Cazenavette et al., CVPR 2022).

A network trained for some steps on the synthetic set, from a stored point of an expert's training,
arrives where the expert arrived some epochs later; SGD on the pixels and on the network's rate.

Differs from the official code:
  - the rate is stored as a logarithm, stays positive and falls to a half at most in one step; SGD
    acts on the rate itself all the same;
  - an expert and an epoch are drawn in every step (there experts are gone through in shuffled
    order);
  - batches of an inner loop are cut from one permutation after another; where they do not divide
    the set, one goes on in the next permutation (there a smaller batch comes first);
  - inner steps are checkpointed, which changes memory and nothing else;
  - a segment whose expert did not move has loss 0 (there it divides by zero);
  - the accuracy is that of the last set, not the best one seen on the test set;
  - any number of images per class: the settings are those of the largest published budget below;
    pixels are standardised by default, as the official runs without ZCA whitening are.
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
from dd_jax.train.segments import StartEpochs
from dd_jax.types import RealData

_CITATION = (
    "G. Cazenavette, T. Wang, A. Torralba, A. A. Efros, J.-Y. Zhu. Dataset Distillation by "
    "Matching Training Trajectories. CVPR 2022."
)
# Images per class -> the official settings for CIFAR-10.
_BUDGETS = {
    1: dict(inner_steps=50, max_start=2, rate_rate=1e-7),
    10: dict(inner_steps=30, max_start=20, rate_rate=1e-5, rate=0.001),
    50: dict(inner_steps=30, max_start=40, rate_rate=1e-5, rate=0.001, image_rate=1000.0),
}


@dataclasses.dataclass(frozen=True)
class MTT(TrajectorySettings):
    """Settings of MTT, see `TrajectorySettings`."""


def official(ipc: int) -> MTT:
    """The official settings for CIFAR-10."""
    return MTT(ipc=ipc, **budget(_BUDGETS, ipc))


def cpu(ipc: int) -> MTT:
    """Settings for some minutes on two CPU cores, the experts' training apart."""
    return narrow(official(ipc))


def recipe(config: MTT, data: RealData) -> Recipe:
    """MTT as a composition of the library's parts; its experts are trained by `prepare`.

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
        config, data, method="mtt", citation=_CITATION, learner=learner, starts=starts,
        parts=matching(config, learner, starts), build=recipe,
    )


_SOURCE = "MTT, as tabulated by later papers, with ZCA at 1 and 10 per class"
METHOD = Method(
    name="mtt",
    title="Dataset Distillation by Matching Training Trajectories",
    config=MTT,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(46.3, 0.8, _SOURCE),
        ("cifar10", 10): Published(65.3, 0.7, _SOURCE),
        ("cifar10", 50): Published(71.6, 0.2, _SOURCE),
        ("cifar100", 1): Published(24.3, 0.3, _SOURCE),
        ("cifar100", 10): Published(40.1, 0.4, _SOURCE),
        ("cifar100", 50): Published(47.7, 0.2, _SOURCE),
        ("tiny_imagenet", 1): Published(8.8, 0.3, _SOURCE),
        ("tiny_imagenet", 10): Published(23.2, 0.2, _SOURCE),
        ("tiny_imagenet", 50): Published(28.0, 0.3, _SOURCE),
    },
    citation=_CITATION,
)
