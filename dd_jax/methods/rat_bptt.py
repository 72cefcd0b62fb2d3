"""RaT-BPTT: Embarrassingly Simple Dataset Distillation (Feng, Vedantam and Kempe, ICLR 2024).

A network classifies real images after some steps of Adam on the set; the derivative goes through a
window of these steps, which lies elsewhere from time to time.

Differs from the official code:
  - Adam's second moment has a small constant inside the root, without which its derivative is not
    finite at zero; networks of the test have none;
  - real batches are drawn without replacement within a batch, not within an epoch;
  - a forward window goes on when the loss on real training images stands still (there the loss on
    test images);
  - networks of the test are trained for a given number of steps (there the best of 300, 600, 1000
    and 3000 on the test set);
  - boosting, blocks of images that are added beside frozen or slower ones, is `distill.boosted`;
  - data for which nothing is published have the settings for CIFAR-10.
"""

from __future__ import annotations

import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.methods.families import by_data
from dd_jax.methods.families.windowed import Windowed
from dd_jax.methods.frame import Site, Start, Whole
from dd_jax.synthetic import Labels, pixels
from dd_jax.train import class_rows


class RaTBPTT(Windowed):
    """Settings of RaT-BPTT, beside those of `Windowed`; the defaults are for CIFAR-10.

    Attributes:
      start: "real", "noise" or "class_means".
      per_class: images of each class in an inner step, drawn anew; None or more than there are for
        all.
      classes: classes in an inner step, drawn anew; None for all. Needs per_class=1.
      unit_norm: every image starts with the norm 1, as officially where images are whitened.
    """

    steps: Whole = 600_000
    start: Start = "noise"
    per_class: Whole | None = 10
    classes: Whole | None = None
    unit_norm: bool = True

    for_data = by_data.RAT_BPTT
    presets = {
        "official": {},  # of CIFAR-10 at ten images per class
        "cpu": {0: dict(batch_size=256, hold=1, per_class=2, classes=None, inner_rate=3e-3,
                        image_rate=0.02, normaliser="standardise", start="real", unit_norm=False,
                        augmentation="none", width=32, evaluation_steps=300, evaluation_seeds=5),
                1: dict(steps=400, window=15, inner_steps=45),
                2: dict(steps=250, window=10, inner_steps=30)},
    }

    def check(self, at: Site) -> None:
        self.adjoint_of(self.adjoint, plain=False)
        if self.classes is not None and self.ipc > 1 and self.per_class != 1:
            raise ConfigError(f"classes is {self.classes} and per_class {self.per_class}",
                              fix="pass per_class=1 where a step takes some classes only")

    def build(self, at: Site) -> dict:
        per_class, free = min(self.ipc, self.per_class or self.ipc), self.labels == "learned"
        plain = at.start()

        def unit_start(data, key):
            given = plain(data, key)
            norms = jnp.sqrt(jnp.sum(given.images**2, axis=(1, 2, 3), keepdims=True))
            return given._replace(images=given.images / jnp.where(norms > 0, norms, 1.0))

        return dict(
            self.windowed(at, plan=class_rows(at.classes, per_class, chosen=self.classes),
                          batch=per_class * (self.classes or at.classes), images=at.images,
                          order="classes", free=free),
            parameterization=pixels(labels=self.labels),
            start=unit_start if self.unit_norm else plain,
            labels=Labels("logits" if free else "one_hot"),
        )
