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

from typing import Any

import optax

from dd_jax.methods.families.trajectory import ZCA, narrow, row
from dd_jax.methods.frame import Rate, Seed, Site, Whole, with_rate
from dd_jax.methods.ftd import Flat
from dd_jax.synthetic import Labels, pixels
from dd_jax.train.expert_starts import classified_start
from dd_jax.train.segments import StartEpochs
from dd_jax.transforms import skipped_above

_LEAST = 1e-12  # of a label's probability: experts' logits are kept as they are


def _row(*numbers: float, **others: Any) -> dict[str, Any]:
    """A row for other data than CIFAR-10: whitened, from epoch 0 on without growth, unless said."""
    usual = dict(batch_size=None, label_rate=10.0, threshold=1.0, min_start=0, first_max_start=None,
                 growth_steps=0)
    return row(*numbers, **{**usual, **others}, normaliser=ZCA)


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

    for_data = {
        "cifar10": {1: dict(normaliser=ZCA)},
        "cifar100": {
            1: _row(40, 3, 20, 1000.0, 1e-5, first_max_start=10, growth_steps=1000),
            10: _row(80, 2, 50, 1000.0, 1e-5, batch_size=1000, first_max_start=30,
                     growth_steps=2000),
            50: _row(80, 2, 70, 1000.0, 1e-5, batch_size=1000, min_start=20),
            100: _row(80, 2, 70, 50.0, 1e-5, batch_size=1000, min_start=30)},
        "tiny_imagenet": {
            1: _row(40, 2, 20, 1e4, 1e-4, first_max_start=15, growth_steps=2000),
            10: _row(40, 2, 50, 100.0, 1e-4, batch_size=500, min_start=10),
            50: _row(20, 2, 70, 100.0, 1e-4, batch_size=1000, min_start=40)},
    }
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
        # Its own rate and many small steps; as officially, experts for twice as long as FTD's.
        "cpu": narrow(
            dict(batch_size=10, min_start=0, expert_count=5, expert_epochs=10),
            one=dict(steps=150, max_start=4, first_max_start=None, growth_steps=0),
            several=dict(batch_size=10, rate=0.01, first_max_start=2, growth_steps=75)),
    }

    def starts(self) -> StartEpochs:
        return StartEpochs(self.min_start, self.max_start, self.first_max_start, self.growth_steps)

    def optimizers(self) -> dict:
        labels = optax.sgd(self.label_rate, momentum=0.9)
        return {name: skipped_above(each, self.threshold)
                for name, each in {**super().optimizers(), "labels": labels}.items()}

    def build(self, at: Site) -> dict:
        fields = dict(super().build(at), parameterization=pixels(labels="soft", least=_LEAST),
                      labels=Labels("probabilities"), evaluation=self.test(at, batch_size=128))
        if self.classified:
            start = classified_start(self.segments(at), at.convnet(), normaliser=at.normaliser,
                                     ipc=self.ipc)
            fields["start"] = with_rate(start, self.rate)
        return fields
