"""AST: Efficient Dataset Distillation via Alignment with Smooth and High-Quality Expert
Trajectories (Shen et al., 2023).

Experts of a stronger optimizer that are kept smooth; a student with momentum, whose loss is
balanced by how early its segment starts, is compared at points on the way as well; images start as
those that represent their class; the start's convolution kernels are shaken.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - representatives are one per cluster, with as many clusters as images (there always ten);
  - the paper's clipping of the experts' loss is known only as a schedule of factors, its settings
    for CIFAR-10 at 1 and 50 per class not at all: those of 10 are used;
  - CIFAR-100 at 1 image per class follows the authors' instructions, which whiten; at 10 and 50
    their scripts, which do not;
  - the test is MTT's: the last epoch of five networks (there the best of one, by another SGD).
"""

from __future__ import annotations

from typing import Annotated

import optax

from dd_jax.errors import ConfigError
from dd_jax.methods.families import by_data
from dd_jax.methods.families.experts import Smooth
from dd_jax.methods.families.trajectory import narrow
from dd_jax.methods.frame import Rate, Site, Whole, one_of
from dd_jax.objectives.trajectory_loss import WAYPOINT_WEIGHTS, balanced_rates, waypoints
from dd_jax.objectives.trajectory_matching import trajectory_matching
from dd_jax.train.expert_starts import representative_start


class AST(Smooth):
    """Settings of AST, those in `Smooth` and:

    Attributes:
      waypoint_weights: of the points on the way, "aggregate" or "adaptive".
      shake: strength of the noise on the start's kernels.
      balanced: the student's loss is larger where its segment starts late.
      representative_start: images start as representatives; False: as `start` says.
      student_momentum: of the student's SGD.
    """

    inner_steps: Whole = 30
    max_start: Whole = 20
    rate_rate: Rate = 1e-6
    waypoint_weights: Annotated[str, one_of(WAYPOINT_WEIGHTS, "waypoint weights")] = "aggregate"
    shake: Rate = 1.0
    balanced: bool = True
    representative_start: bool = True
    student_momentum: Rate = 0.9

    for_data = by_data.AST
    presets = {
        "official": {},
        # Its own rates; momentum takes the student three times as far as MTT's.
        "cpu": narrow(dict(expert_rate=0.003), one=dict(max_start=3),
                      several=dict(image_rate=300.0, rate=0.01, rate_rate=1e-6)),
    }

    def adjoints(self) -> tuple[str, ...]:
        return ("recursive",)

    def student_optimizer(self) -> optax.GradientTransformation:
        return optax.trace(self.student_momentum)

    def expert_start(self):
        return representative_start if self.representative_start else None

    def check(self, at: Site) -> None:
        super().check(at)
        if self.inner_steps < self.span:
            raise ConfigError(f"{self.inner_steps} inner steps cannot pass {self.span} waypoints",
                              fix=f"pass inner_steps={self.span} or more")

    def matching(self, at: Site, learner):
        return trajectory_matching(
            learner, self.segments(at, waypoints=True), starts=self.starts(), shake=self.shake,
            loss=waypoints(self.waypoint_weights),
            rate_schedule=balanced_rates(self.max_start) if self.balanced else None,
        )
