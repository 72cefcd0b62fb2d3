"""FTD: Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation (Du et al.,
CVPR 2023).

MTT with experts whose trajectories are flat, trained by a sharpness-aware rule, and a moving
average of the images.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - the average has a bias correction (there it starts at the first images) and holds the logarithm
    of the rate, too;
  - the average is tested on fresh networks (there on networks that were trained on the last images
    before);
  - the radius is the paper's 0.01 (the released script's default is 2.0 where the flags are left
    out).
"""

from __future__ import annotations

from dd_jax.methods.families import by_data
from dd_jax.methods.families.experts import Flat
from dd_jax.methods.families.trajectory import narrow
from dd_jax.methods.frame import Decay, Site


class FTD(Flat):
    """Settings of FTD, those in `Flat` and:

    Attributes:
      average: decay of the moving average that is the product.
    """

    average: Decay = 0.999

    for_data = by_data.FTD
    presets = {
        "official": {
            1: dict(inner_steps=50, max_start=2, rate_rate=1e-7, average=0.9999),
            10: dict(inner_steps=30, max_start=20, rate_rate=1e-5, rate=0.001, average=0.9995),
            50: dict(inner_steps=30, max_start=40, rate_rate=1e-5, image_rate=1000.0, share=1.0),
        },
        "cpu": narrow(dict(average=0.9)),
    }

    def build(self, at: Site) -> dict:
        return dict(super().build(at), average=self.average)
