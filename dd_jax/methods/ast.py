"""AST: Efficient Dataset Distillation via Alignment with Smooth and High-Quality Expert
Trajectories (Shen et al., 2023).

Experts of a stronger optimiser that are kept smooth; a student with momentum, whose loss is
balanced by how early its segment starts, is compared at points on the way as well; images start as
those that represent their class; the start's convolution kernels are shaken.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - representatives are one per cluster, with as many clusters as images (there ten clusters, so no
    images at all below ten per class);
  - the paper's clipping of the experts' loss is known only as a schedule of factors;
  - its settings for CIFAR-10 at 1 and 50 per class are not known: those of 10 are used;
  - the graph is never cut to the last steps of the student (a flag there, off);
  - evaluation as in MTT: the accuracy of the last epoch of five networks (there the best of every
    twentieth epoch of one, with another weight decay, momentum and rate schedule).
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError, require_at_least_zero, unknown
from dd_jax.methods.record import Method
from dd_jax.methods.trajectory import (
    TrajectorySettings,
    narrow,
    student_of,
    trajectory_recipe,
    with_rate,
)
from dd_jax.objectives.trajectory_loss import WAYPOINT_WEIGHTS, waypoints
from dd_jax.objectives.trajectory_matching import trajectory_matching
from dd_jax.train.expert_rules import smooth
from dd_jax.train.expert_starts import representative_start
from dd_jax.train.segments import Segments, StartEpochs
from dd_jax.types import RealData

_CITATION = (
    "J. Shen, W. Yang, K. Y. Lam. Efficient Dataset Distillation via Alignment with Smooth and "
    "High-Quality Expert Trajectories. 2023."
)


@dataclasses.dataclass(frozen=True)
class AST(TrajectorySettings):
    """Settings of AST, those in `TrajectorySettings` and:

    Attributes:
      waypoint_weights: of the points on the way, "aggregate" or "adaptive".
      shake: strength of the noise on the start's kernels.
      balanced: the student's loss is larger where its segment starts late.
      representative_start: images start as representatives; False starts as `start` says.
      student_momentum: of the student's SGD.
      penalty: of the experts' input gradients.
      expert_momentum, expert_decay, expert_drop: of the experts' SGD, whose rate is multiplied by
        0.6 after epoch `expert_drop`.
    """

    inner_steps: int = 30
    max_start: int = 20
    rate_rate: float = 1e-6
    expert_rate: float = 0.003
    waypoint_weights: str = "aggregate"
    shake: float = 1.0
    balanced: bool = True
    representative_start: bool = True
    student_momentum: float = 0.9
    penalty: float = 2.0
    expert_momentum: float = 0.9
    expert_decay: float = 1e-3
    expert_drop: int = 26


def official(ipc: int) -> AST:
    """The settings of the official scripts for CIFAR-10 at 10 per class."""
    return AST(ipc=ipc)


def cpu(ipc: int) -> AST:
    """Settings for some minutes on two CPU cores, the experts' training apart."""
    return narrow(official(ipc))


def balance(max_start: int):
    """AST's factor of the student's loss at a start epoch t.

      log_5(t - h + 8) for t >= h, 1 / log_5(h - t + 8) before,   h = floor(max_start / 2)
    """
    half = max_start // 2

    def factor(epoch: jax.Array) -> jax.Array:
        scale = jnp.log(jnp.abs(epoch - half) + 8.0) / math.log(5.0)
        return jnp.where(epoch >= half, scale, 1 / scale)

    return factor


def recipe(config: AST, data: RealData) -> Recipe:
    """AST as a composition of the library's parts; its experts are trained by `prepare`.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be, experts that do not fit it.
    """
    for name in ("shake", "student_momentum", "penalty", "expert_momentum", "expert_decay"):
        require_at_least_zero(name, getattr(config, name), example=0.9)
    if config.waypoint_weights not in WAYPOINT_WEIGHTS:
        raise unknown("waypoint weights", config.waypoint_weights, WAYPOINT_WEIGHTS)
    if config.inner_steps < config.span:
        raise ConfigError(f"{config.inner_steps} inner steps cannot pass {config.span} waypoints",
                          fix=f"pass inner_steps={config.span} or more")
    learner = student_of(config, data, optimizer=optax.trace(config.student_momentum))
    starts = StartEpochs(0, config.max_start)

    def parts(trajectories, normaliser):
        segments = Segments(trajectories, config.span, waypoints=True)
        objective = trajectory_matching(
            learner, segments, starts=starts, shake=config.shake,
            loss=waypoints(config.waypoint_weights),
            rate_schedule=balance(config.max_start) if config.balanced else None,
        )
        if not config.representative_start:
            return {"objective": objective}
        start = representative_start(segments, learner.network, normaliser=normaliser,
                                     ipc=config.ipc)
        return {"objective": objective, "initialise": with_rate(start, config.rate)}

    rates = [config.expert_rate * (0.6 if epoch >= config.expert_drop else 1.0)
             for epoch in range(config.expert_epochs)]
    training = dict(rule=smooth(penalty=config.penalty), learning_rate=rates,
                    momentum=config.expert_momentum, weight_decay=config.expert_decay)
    return trajectory_recipe(config, data, method="ast", citation=_CITATION, learner=learner,
                             starts=starts, parts=parts, build=recipe, training=training,
                             adjoints=("recursive",))


METHOD = Method(
    name="ast",
    title=("Efficient Dataset Distillation via Alignment with Smooth and High-Quality Expert "
           "Trajectories"),
    config=AST,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={},
    citation=_CITATION,
)
