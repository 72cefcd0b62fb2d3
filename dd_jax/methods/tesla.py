"""TESLA: Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory (Cui et al., ICML
2023).

MTT with a derivative of the student's training that needs the memory of one step, and on request
with labels that an expert gives to the images.

The rule regards the weights before each step as constants. It is exact for one step only: the
products of (1 - rate * Hessian) are left out, see `train.two_pass`. `adjoint="checkpointed"` is the
exact derivative at about the same memory; the metric "cosine" of `compared=True` says how far the
two are apart.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - the images' derivative is that of the paper (the released code loses a factor of two, so its
    rate of 1,000 for images is 500 here);
  - with soft labels the finished set has those of one expert, drawn as in a step (there those of
    the last step);
  - a set is tested by five networks (there by three).
"""

from __future__ import annotations

import dataclasses

import jax

from dd_jax.data.fetch import fetch
from dd_jax.distill.recipe import Recipe
from dd_jax.methods.record import Method, Published, budget
from dd_jax.methods.trajectory import TrajectorySettings, narrow, student_of, trajectory_recipe
from dd_jax.objectives.compared import compared
from dd_jax.objectives.trajectory_matching import (
    TrajectoryState,
    target_labels,
    trajectory_matching,
)
from dd_jax.train.experts import unflatten
from dd_jax.train.segments import Segments, StartEpochs
from dd_jax.types import RealData, SyntheticSet

_CITATION = (
    "J. Cui, R. Wang, S. Si, C.-J. Hsieh. Scaling Up Dataset Distillation to ImageNet-1K with "
    "Constant Memory. ICML 2023."
)
# Images per class -> settings for CIFAR-10; beyond 1 they are MTT's, since none are published.
_BUDGETS = {
    1: dict(inner_steps=50, max_start=5, rate_rate=1e-7, image_rate=500.0),
    10: dict(inner_steps=30, max_start=20, rate_rate=1e-5, rate=0.001),
    50: dict(inner_steps=30, max_start=40, rate_rate=1e-5, rate=0.001, image_rate=1000.0),
}


@dataclasses.dataclass(frozen=True)
class TESLA(TrajectorySettings):
    """Settings of TESLA, those in `TrajectorySettings` and:

    Attributes:
      soft_labels: labels are the probabilities of the expert at the segment's end.
      compared: measure the cosine to the exact derivative in every step, at twice its cost.
    """

    steps: int = 10_000
    adjoint: str = "two_pass"
    soft_labels: bool = False
    compared: bool = False


def official(ipc: int) -> TESLA:
    """The official settings for CIFAR-10."""
    return TESLA(ipc=ipc, **budget(_BUDGETS, ipc))


def cpu(ipc: int) -> TESLA:
    """Settings for some minutes on two CPU cores, the experts' training apart."""
    return narrow(official(ipc))


def recipe(config: TESLA, data: RealData) -> Recipe:
    """TESLA as a composition of the library's parts; its experts are trained by `prepare`.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be, experts that do not fit it.
    """
    learner = student_of(config, data)
    starts = StartEpochs(0, config.max_start)

    def parts(trajectories, normaliser):
        segments = Segments(trajectories, config.span)

        def matched(student):
            return trajectory_matching(student, segments, starts=starts, relabel=config.soft_labels)

        objective = matched(learner)
        if config.compared:
            exact = dataclasses.replace(config, adjoint="checkpointed")
            objective = compared(objective, matched(student_of(exact, data)))

        def finalise(synthetic: SyntheticSet, data: RealData, key: jax.Array) -> SyntheticSet:
            rows = objective.sample(data, TrajectoryState(jax.numpy.asarray(config.steps)), key)
            like = jax.eval_shape(learner.network.init, key)["params"]
            target = unflatten(like)(fetch(data, rows).target)
            return synthetic._replace(
                labels=target_labels(learner.network, target, synthetic.images))

        return {"objective": objective, "finalise": finalise if config.soft_labels else None}

    return trajectory_recipe(
        config, data, method="tesla", citation=_CITATION, learner=learner, starts=starts,
        parts=parts, build=recipe, adjoints=("two_pass",),
        label_kind="probabilities" if config.soft_labels else "one_hot",
    )


_SOURCE = "TESLA, as tabulated by later papers"
METHOD = Method(
    name="tesla",
    title="Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory",
    config=TESLA,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(48.5, 0.8, _SOURCE),
        ("cifar10", 10): Published(66.4, 0.8, _SOURCE),
        ("cifar10", 50): Published(72.6, 0.7, _SOURCE),
        ("cifar100", 1): Published(24.8, 0.4, _SOURCE),
        ("cifar100", 10): Published(41.7, 0.3, _SOURCE),
        ("cifar100", 50): Published(47.9, 0.3, _SOURCE),
        ("imagenet", 10): Published(17.8, 1.3, _SOURCE),
        ("imagenet", 50): Published(27.9, 1.2, _SOURCE),
    },
    citation=_CITATION,
)
