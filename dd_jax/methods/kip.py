"""KIP: kernel inducing points (Nguyen, Chen and Lee, ICLR 2021; Nguyen et al., NeurIPS 2021).

Kernel ridge regression with the tangent kernel of an infinitely wide network; Adam on the pixels.

Differs from the official code:
  - K_ss and the solve are float64, the kernel with the real batch float32 (all float64 there);
  - no augmentation: the ranges of the authors' are not published. Their headline figures are the
    best of several settings, among them augmentation and learned labels (a setting here); for fixed
    labels and no augmentation, the default, they have less: 67.1 by the kernel of ConvNet3 at 50
    images per class of CIFAR-10, where the headline is 80.6;
  - whitening is fitted on all training images (the authors keep the last 5,000 for validation),
    and fewer images than dimensions are regularised with a warning instead of cutting the rank;
  - a fixed number of steps without choosing a checkpoint by validation;
  - the learning rate of the networks that test the set is a constant over the width: the authors
    estimate the largest stable rate from the empirical tangent kernel of each network, see
    `families.tests.STABLE_RATE`.
"""

from __future__ import annotations

from typing import Annotated

import optax

from dd_jax.evaluate import ReadOut
from dd_jax.methods.families.kernels import KernelSettings, balanced_batch, kernel_by_name
from dd_jax.methods.frame import Rate, Site, Whole, one_of
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.synthetic import Labels, pixels


class KIP(KernelSettings):
    """Settings of KIP, those in `KernelSettings` and:

    Attributes:
      steps: outer steps.
      learning_rate: Adam's, constant, for images and labels.
      batch_size: real images per step, of every class the same number (rounded down) and no more
        than its largest class has.
      labels: "fixed" or "learned".
    """

    steps: Whole = 50_000
    learning_rate: Rate = 4e-2
    batch_size: Whole = 5000
    labels: Annotated[str, one_of(("fixed", "learned"), "label head")] = "fixed"

    presets = {
        "official": {},
        # A test at FRePo's CPU rate, see there.
        "cpu": {0: dict(steps=300, kernel="fc3", evaluation="frepo", evaluation_width=32,
                        evaluation_rate=1.2e-3),
                10: dict(evaluation_steps=600),
                11: dict(evaluation_steps=600, batch_size=2000)},
    }

    def build(self, at: Site) -> dict:
        return dict(
            objective=kernel_ridge(kernel_by_name(self.kernel), ridge=self.ridge,
                                   batch_size=balanced_batch(self.batch_size, at.data)),
            parameterization=pixels(labels=self.labels),
            optimizer=optax.adam(self.learning_rate),
            labels=Labels("centred"),
            evaluation=self.kernel_test(at, read_out=ReadOut(self.kernel, ridge=self.ridge)),
        )
