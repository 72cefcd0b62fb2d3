"""ATT: Dataset Distillation by Automatic Training Trajectories (Liu et al., ECCV 2024).

MTT whose student is compared where it is nearest to the expert's target, after a number of steps
that is chosen anew each time; and a moving average of the images.

Differs from the official code: as MTT and FTD do, see there; experts have batches of 512, as there,
and the nearest step is looked for among all (there only below a distance of 10,000).
"""

from __future__ import annotations

from dd_jax.methods.families import by_data
from dd_jax.methods.families.trajectory import Trajectories, narrow
from dd_jax.methods.frame import Decay, Site, Whole
from dd_jax.objectives.trajectory_loss import nearest
from dd_jax.objectives.trajectory_matching import trajectory_matching


class ATT(Trajectories):
    """Settings of ATT, those in `Trajectories`, where `inner_steps` are the most, and:

    Attributes:
      average: decay of the moving average that is the product.
    """

    expert_batch_size: Whole = 512
    average: Decay = 0.999

    for_data = by_data.ATT
    presets = {
        "official": {
            1: dict(inner_steps=80, span=4, max_start=2, rate_rate=1e-7, steps=6000,
                    average=0.9999),
            10: dict(inner_steps=30, max_start=20, image_rate=1e4, rate_rate=1e-4, steps=60_000,
                     average=0.9999),
            50: dict(inner_steps=50, max_start=40, rate_rate=1e-5, rate=0.001, steps=1_000_000),
        },
        # Its rates at 10, 1e4 and 1e-4, are for 60,000 steps.
        "cpu": narrow(
            dict(average=0.9), one=dict(steps=150),
            several=dict(max_start=lambda ipc: 2 if ipc < 10 else 3)),
    }

    def matching(self, at: Site, learner):
        return trajectory_matching(learner, self.segments(at), starts=self.starts(),
                                   loss=nearest())

    def build(self, at: Site) -> dict:
        return dict(super().build(at), average=self.average)
