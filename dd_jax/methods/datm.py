"""DATM: Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching (Guo et
al., ICLR 2024).

FTD's experts; segments start in a range of epochs that follows the number of images (early epochs
teach what is easy) and widens; images start as some that an expert classifies rightly, and their
labels, the experts' logits at first, are learned.

Differs from the official code: as MTT does, see `methods.mtt`; and
  - images are chosen among a random part of each class (there among all, in random order); labels
    start from the experts that classify an image rightly, or from all where none does (there this
    is not a number);
  - labels are stored as logarithms of probabilities, which are logits of the same softmax.
"""

from __future__ import annotations

import optax

from dd_jax.methods.families import by_data
from dd_jax.methods.families.experts import Flat
from dd_jax.methods.families.trajectory import narrow
from dd_jax.methods.frame import Rate, Seed, Site, Whole
from dd_jax.synthetic import Labels, pixels
from dd_jax.train.expert_starts import classified_start
from dd_jax.train.segments import StartEpochs
from dd_jax.transforms import skipped_above

_LEAST = 1e-12  # of a label's probability: experts' logits are kept as they are


class DATM(Flat):
    """Settings of DATM, those in `Flat` and:

    Attributes:
      min_start: segments start at this epoch or later.
      first_max_start, growth_steps: `max_start` of the first step, and how many steps it takes to
        grow to its end; None and 0 for no growth.
      classified: start from images that an expert classifies rightly, with experts' labels; False
        starts as `start` says, with hard labels.
      label_rate: learning rate of the labels' SGD of momentum 0.9.
      threshold: steps of a larger loss move nothing.
    """

    steps: Whole = 10_000
    inner_steps: Whole = 80
    rate_rate: Rate = 1e-5
    expert_epochs: Whole = 100
    min_start: Seed = 0
    first_max_start: Whole | None = None
    growth_steps: Seed = 0
    classified: bool = True
    label_rate: Rate = 2.0
    threshold: Rate = 1.0

    for_data = by_data.DATM
    presets = {
        "official": {
            1: dict(batch_size=10, max_start=4, rate_rate=1e-7, label_rate=5.0, threshold=1.1),
            10: dict(batch_size=100, first_max_start=10, max_start=20, growth_steps=1000),
            50: dict(batch_size=500, image_rate=1000.0, first_max_start=20, max_start=40,
                     growth_steps=2000),
            500: dict(inner_steps=40, batch_size=1000, image_rate=50.0, label_rate=10.0,
                      min_start=40, max_start=60),
            1000: dict(inner_steps=100, batch_size=1000, image_rate=50.0, label_rate=10.0,
                       min_start=40, max_start=60),
        },
        # Many small steps that lead as far as MTT's; as officially, experts train twice as long as
        # FTD's.
        "cpu": narrow(
            dict(batch_size=10, min_start=0, expert_count=3, expert_epochs=10),
            one=dict(steps=150, max_start=4, first_max_start=None, growth_steps=0),
            several=dict(batch_size=10, rate=0.02, first_max_start=2, growth_steps=75)),
    }

    def starts(self) -> StartEpochs:
        return StartEpochs(self.min_start, self.max_start, self.first_max_start, self.growth_steps)

    def optimizers(self) -> dict:
        labels = optax.sgd(self.label_rate, momentum=0.9)
        return {name: skipped_above(each, self.threshold)
                for name, each in {**super().optimizers(), "labels": labels}.items()}

    def expert_start(self):
        return classified_start if self.classified else None

    def build(self, at: Site) -> dict:
        return dict(super().build(at), parameterization=pixels(labels="soft", least=_LEAST),
                    labels=Labels("probabilities"), evaluation=self.test(at, batch_size=128))
