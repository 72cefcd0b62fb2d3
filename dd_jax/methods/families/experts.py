"""Experts that are trained by a rule of their own: in flat valleys, or kept smooth."""

from __future__ import annotations

from dd_jax.methods.families.trajectory import Trajectories
from dd_jax.methods.frame import Rate, Whole
from dd_jax.train.expert_rules import sharpness_aware, smooth


class Flat(Trajectories):
    """Settings of experts in flat valleys: of FTD, and of DATM.

    Attributes:
      radius: of the experts' perturbation, relative to the size of each parameter.
      share: how much of the plain gradient's part that is orthogonal to the perturbed one is taken
        away; 0 is adaptive sharpness-aware minimisation.
    """

    radius: Rate = 0.01
    share: Rate = 0.3

    def training(self) -> dict:
        return dict(rule=sharpness_aware(rho=self.radius, a=self.share))


class Smooth(Trajectories):
    """Settings of experts that are kept smooth, by SGD with momentum: of AST.

    Attributes:
      penalty: of the experts' input gradients.
      expert_momentum, expert_decay: of their SGD.
      expert_drop: epochs after which its rate drops to 0.6 and its momentum begins anew.
    """

    expert_rate: Rate = 0.003
    penalty: Rate = 2.0
    expert_momentum: Rate = 0.9
    expert_decay: Rate = 1e-3
    expert_drop: Whole = 27

    def training(self) -> dict:
        full = min(self.expert_drop, self.expert_epochs)
        dropped = self.expert_epochs - full
        return dict(rule=smooth(penalty=self.penalty),
                    learning_rate=[self.expert_rate] * full + [0.6 * self.expert_rate] * dropped,
                    momentum=self.expert_momentum, weight_decay=self.expert_decay,
                    restart=full if dropped else None)
