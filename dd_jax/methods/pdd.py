"""PDD: Data Distillation Can Be Like Vodka: Distilling More Times For Better Quality (Chen et al.,
ICLR 2024).

MTT in five stages: each adds `ipc` images per class to those of the stages before, which are
frozen, and its experts start from networks that were trained on these. The plan is that of one
stage; `distill.progressive` and the command make all of them, so that ipc=2 ends in ten per class.

Differs from the official code: as MTT and `distill.progressive` do, see there; and
  - networks between stages are trained as those of the test, 501 epochs for each stage (there 1,001
    for the last one), and every network of the test starts anew (there from the experts' starts);
  - 1 image per class and stage has the settings of 2 (there other rates of the rate, from stage 2
    on).
"""

from __future__ import annotations

import dataclasses

from dd_jax.methods.families import by_data
from dd_jax.methods.families.trajectory import Trajectories
from dd_jax.methods.frame import Rate, Site, Whole
from dd_jax.train.student import Student


class PDD(Trajectories):
    """Settings of PDD on MTT, those in `Trajectories`, where `ipc` and `steps` are those of a stage
    and batch_size=None is for as many images as one stage has, whichever they are of.
    """

    max_start: Whole = 5
    image_rate: Rate = 1000.0
    evaluation_epochs: Whole = 1503  # 501 for each of five stages, see `evaluate.equal_budget`

    stages = 5
    for_data = by_data.PDD
    presets = {
        "official": {10: dict(inner_steps=30, max_start=15, rate_rate=1e-5)},
        # Experts of every stage are trained anew: few, for the epochs that segments lie in.
        "cpu": {0: dict(steps=40, max_start=3, rate_rate=1e-6, width=32, evaluation_width=32,
                        evaluation_epochs=600, batch_size=None, expert_count=2, expert_epochs=5,
                        expert_rate=0.05),
                10: dict(batch_size=25, rate=0.02, rate_rate=1e-5)},
    }

    def student(self, at: Site, adjoint: str) -> Student:
        batch_size = self.batch_size or at.images
        return super(PDD, dataclasses.replace(self, batch_size=batch_size)).student(at, adjoint)

    def later(self, at: Site):
        needed = min(self.expert_epochs, self.max_start + self.span + 1)
        return super(PDD, dataclasses.replace(self, expert_epochs=needed)).later(at)
