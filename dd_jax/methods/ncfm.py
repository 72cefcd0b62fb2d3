"""NCFM: Dataset Distillation with Neural Characteristic Function: A Minmax Perspective (Wang et
al., CVPR 2025).

Characteristic functions of normalised features of real and shown images agree, under networks
somewhere between their random start and their end after training on real images; and the trained
ends recognise the shown images (calibration). Every stored image shows factor^2 images, as in IDC.

Differs from the official code: as `families.formed` says; and
  - the calibration's network is drawn on its own (there the trained end of the pair that the
    matching uses);
  - a learned sampler ascends once per iteration by the sum over classes, with features computed
    anew after the step and, where classes have their turns, on images drawn for it (there once per
    class, by the same derivative pass);
  - the rate waits for a plateau of the mean loss of all steps of an iteration, those of calibration
    included, and falls one iteration earlier;
  - CIFAR-100's SGD at 10 images per class, soft labels and the features of several layers for deep
    networks are not offered;
  - a class smaller than the real batch is gone through again (the official code takes fewer);
  - networks of the bank are trained on random batches (there on passes over the set);
  - preset "cpu" takes one step for all classes, of matching and calibration together; "official"
    one for every class and term, as there.
"""

from __future__ import annotations

from typing import Annotated

import optax

from dd_jax.distill.needs import bank
from dd_jax.methods.families.formed import Formed
from dd_jax.methods.frame import ConvNets, Site, Tested
from dd_jax.methods.frame.fields import Rate, Seed, Share, Views, Whole, one_of
from dd_jax.objectives import weighted_sum
from dd_jax.objectives.alternating import alternating
from dd_jax.objectives.characteristic import characteristic_function
from dd_jax.objectives.class_by_class import class_by_class
from dd_jax.objectives.classification import classification
from dd_jax.objectives.discrepancy import Probe
from dd_jax.objectives.distribution_matching import distribution_matching
from dd_jax.objectives.frequencies import learned_frequencies, normal_frequencies
from dd_jax.pools.bank import bank_pool
from dd_jax.train.teachers import train_supervised
from dd_jax.transforms import decayed_momentum, within_range
from dd_jax.types import Objective

# Frequencies per draw: of the released settings, of the paper, and of the released code.
FREQUENCIES = {"normal": 4096, "learned": 1024, "tiled": 64}


class NCFM(Formed, ConvNets, Tested):
    """Settings of NCFM; the defaults are the official ones for small images.

    Attributes:
      iterations: each is one step of the optimizer, or with `in_turn` one for every class and term.
      learning_rate, weight_decay: of AdamW on pixels in [0, 1].
      patience: iterations without a lower loss after which the rate is halved.
      batch_size: real images per class and step.
      sampler: of the frequencies, "normal" (every released configuration), "learned" (the paper's
        scale mixture) or "tiled" (the released code's network).
      frequencies: per class and step; None: 4096 normal, 1024 learned or 64 tiled ones.
      alpha: weight of amplitudes; phases have 1 - alpha.
      scale: of the discrepancy.
      calibration: weight of the cross-entropy; 0 leaves it out.
      bank, bank_seed: networks trained before the first step, and the seed of their training.
      bank_steps: of the training of each; None: as many as 60 passes over the real set have.
      bank_batch_size, bank_rate, bank_momentum, bank_decay: of their SGD, whose rate is multiplied
        by 0.2 after two thirds and after five sixths of the steps.
      mix: probability of CutMix per batch, in their training and in the evaluation.
      matching: a name in `augment.by_name`, shared by the real and shown images of a class.
    """

    iterations: Whole = 20_000
    learning_rate: Rate = 1e-3
    weight_decay: Rate = 5e-4
    patience: Whole = 500
    batch_size: Whole = 1024
    sampler: Annotated[str, one_of(FREQUENCIES)] = "normal"
    frequencies: Whole | None = None
    alpha: Share = 0.5
    scale: Rate = 300.0
    calibration: Rate = 1.0
    bank: Whole = 20
    bank_seed: Seed = 0
    bank_steps: Whole | None = None
    bank_batch_size: Whole = 128
    bank_rate: Rate = 0.01
    bank_momentum: Rate = 0.9
    bank_decay: Rate = 5e-4
    mix: Share = 0.5
    matching: Views = "idc_matching"
    augmentation: Views = "idc"
    evaluation_epochs: Whole | None = 2000

    least_classes = 1
    presets = {
        "official": {},
        "cpu": {0: dict(iterations=1000, learning_rate=1e-2, patience=200, in_turn=False,
                        batch_size=64, frequencies=256, bank=5, bank_steps=200, width=32,
                        evaluation_width=32, evaluation_epochs=None)},
    }

    def probe(self) -> Probe:
        """The frequencies that the settings name."""
        count = self.frequencies or FREQUENCIES[self.sampler]
        if self.sampler == "normal":
            return normal_frequencies(count)
        return learned_frequencies(count, kind={"learned": "scale_mixture"}.get(self.sampler,
                                                                                self.sampler))

    def check(self, at: Site) -> None:
        super().check(at)
        self.probe()  # what cannot be drawn fails before the training

    def needs(self, at: Site) -> dict:
        network, views = at.convnet(), at.augmentation("idc_training")
        steps = self.bank_steps or max(1, 60 * at.data.labels.shape[0] // self.bank_batch_size)
        rate = optax.join_schedules(
            [optax.constant_schedule(self.bank_rate * 0.2**drop) for drop in range(3)],
            [2 * steps // 3, 5 * steps // 6],
        )
        trainer = decayed_momentum(rate, momentum=self.bank_momentum,
                                   weight_decay=self.bank_decay)
        numbers = dict(steps=steps, batch_size=self.bank_batch_size, mix=self.mix)

        def train(data, key, normaliser):
            return train_supervised(network, data, normaliser=normaliser, key=key,
                                    optimizer=trainer, augmentation=views, **numbers)

        settings = dict(numbers, rate=self.bank_rate, momentum=self.bank_momentum,
                        decay=self.bank_decay, views="idc_training", drops="ncfm")
        return {"bank": bank(network, self.bank, train, settings=settings,
                             normaliser=at.whitening, seed=self.bank_seed)}

    def _objective(self, at: Site) -> Objective:
        """The two terms under the networks of the bank, jointly or in turn."""
        network, networks, views = at.convnet(), at.have["bank"], at.augmentation(self.matching)
        matching = distribution_matching(
            network, bank_pool(networks),
            characteristic_function(self.probe(), alpha=self.alpha, beta=1 - self.alpha),
            batch_size=self.batch_size, scale=self.scale, augmentation=views,
        )
        calibration = classification(network, bank_pool(networks, interpolated=False),
                                     augmentation=views)
        if self.in_turn:
            matching, calibration = (class_by_class(term, at.classes)
                                     for term in (matching, calibration))
        if not self.calibration:
            return matching
        if not self.in_turn:
            return weighted_sum([matching, calibration], [1.0, self.calibration])
        weighted = weighted_sum([calibration], [self.calibration])
        return alternating([matching, weighted], [at.classes] * 2)

    def build(self, at: Site) -> dict:
        objective = self._objective(at)
        turns = objective.turns
        adamw = optax.chain(
            optax.adamw(self.learning_rate, weight_decay=self.weight_decay),
            optax.contrib.reduce_on_plateau(0.5, patience=self.patience, accumulation_size=turns),
        )
        return dict(
            self.stored(at), objective=objective, steps=self.iterations * turns,
            optimizer=within_range(adamw, at.normaliser),
            evaluation=at.protocol("ncfm", optimizer="adamw", learning_rate=1e-3,
                                   weight_decay=0.01, schedule="fifths", batch_size=128,
                                   cutmix=self.mix),
        )
