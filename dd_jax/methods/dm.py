"""DM: Dataset Condensation with Distribution Matching (Zhao and Bilen, WACV 2023).

Class means of random networks' features, under shared augmentation; SGD on the pixels.

Differs from the official code:
  - keys instead of seeds from the clock: every run can be repeated;
  - any number of images per class (the official script exits outside a fixed list);
  - preset "official" takes rate 10 from 100 images per class on, as for CIFAR-10; for CIFAR-100 the
    authors keep 1;
  - a class smaller than the real batch is gone through again (the official code takes fewer).
"""

from __future__ import annotations

import optax

from dd_jax import pools
from dd_jax.methods.frame import NormedConvNets, Pixels, Site, Tested
from dd_jax.methods.frame.fields import Normalisation, Rate, Whole
from dd_jax.objectives import mean_embedding


class DM(Pixels, NormedConvNets, Tested):
    """Settings of DM; the defaults are the official ones.

    Attributes:
      steps: outer steps.
      learning_rate, momentum: of the SGD on the pixels.
      batch_size: real images per class and step.
    """

    steps: Whole = 20_000
    learning_rate: Rate = 1.0
    momentum: Rate = 0.5
    batch_size: Whole = 256
    normaliser: Normalisation = "published"

    least_classes = 1
    presets = {
        "official": {100: dict(learning_rate=10.0)},
        # The official rate, although a narrow network has a smaller gradient and of ten images each
        # has a tenth of the mean: larger ones move images farther, and they end a point lower.
        "cpu": {0: dict(steps=4000, batch_size=64, width=32, evaluation_width=32,
                        evaluation_epochs=None),
                11: dict(steps=2500)},
    }

    def build(self, at: Site) -> dict:
        network = at.convnet()
        return dict(
            objective=mean_embedding(network, pools.fresh_pool(network),
                                     batch_size=self.batch_size, augmentation=at.augmentation()),
            optimizer=optax.sgd(self.learning_rate, momentum=self.momentum),
            evaluation=at.protocol("dc"),
        )
