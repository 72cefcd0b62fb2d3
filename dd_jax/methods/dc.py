"""DC: Dataset Condensation with Gradient Matching (Zhao, Mopuri and Bilen, ICLR 2021).

Class-wise gradients on real and synthetic images agree, row by row, along the training of random
networks on the synthetic set; SGD on the pixels.

Differs from the official code:
  - keys instead of seeds from the clock: every run can be repeated;
  - any number of images per class: the loops are those of the largest published budget below;
  - the augmentation of the evaluation, which the official code has for MNIST and for batch
    normalisation, is a setting and "none" by default;
  - with batch normalisation the running statistics are measured on 16 images per class of the
    matching batch (there drawn for it), and the network's training goes on from its own;
  - a class smaller than the real batch is gone through again (the official code takes fewer).
"""

from __future__ import annotations

import optax

from dd_jax import pools
from dd_jax.methods.frame import NormedConvNets, Pixels, Site, Tested
from dd_jax.methods.frame.fields import GradientDistance, Normalisation, Rate, Start, Views, Whole
from dd_jax.objectives import gradient_matching

LOOPS = {1: dict(uses=1, epochs=1), 10: dict(uses=10, epochs=50), 20: dict(uses=20, epochs=25),
         30: dict(uses=30, epochs=20), 40: dict(uses=40, epochs=15), 50: dict(uses=50, epochs=10)}
NARROW = dict(batch_size=64, width=32, evaluation_width=32, evaluation_epochs=None)
# With several images per class there is time for few steps only: at a higher rate, from real
# images, since noise is not left behind so soon, and with trainings that are short but go as far.
# With epochs=2 at a rate of 0.05 networks stay so young that DSA loses one to two points.
SEVERAL = dict(networks=60, uses=10, epochs=5, network_rate=0.1, learning_rate=0.5, start="real")


class DC(Pixels, NormedConvNets, Tested):
    """Settings of DC; the defaults are the official ones for one image per class.

    Attributes:
      networks: random networks, one after another.
      uses: matching steps with each of them.
      epochs: passes over the synthetic set that train it after each but the last.
      learning_rate, momentum: of the SGD on the pixels.
      batch_size: real images per class and step.
      network_rate, network_batch_size: of the SGD that trains networks.
      distance: a name in `objectives.gradient_distances`.
      classes_at_once: classes whose gradients are computed together; None: one on a CPU, elsewhere
        as many as have about 2,560 real images.
    """

    networks: Whole = 1000
    uses: Whole = 1
    epochs: Whole = 1
    learning_rate: Rate = 0.1
    momentum: Rate = 0.5
    batch_size: Whole = 256
    network_rate: Rate = 0.01
    network_batch_size: Whole = 256
    distance: GradientDistance = "row_cosine"
    classes_at_once: Whole | None = None
    start: Start = "noise"
    normaliser: Normalisation = "published"
    augmentation: Views = "none"
    evaluation_epochs: Whole | None = 301

    presets = {
        "official": LOOPS,
        "cpu": {0: NARROW, 1: dict(networks=600, uses=1, epochs=1), 2: SEVERAL},
    }

    def class_wise(self, at: Site):
        """Whether a step matches class by class, see `objectives.gradient_matching`."""
        return True

    def build(self, at: Site) -> dict:
        network, augmentation = at.convnet(), at.augmentation()
        pool = pools.inner_trained_pool(
            network, uses=self.uses, epochs=self.epochs, optimizer=optax.sgd(self.network_rate),
            batch_size=self.network_batch_size, augmentation=augmentation)
        return dict(
            objective=gradient_matching(
                network, pool, batch_size=self.batch_size, distance=self.distance,
                augmentation=augmentation, class_wise=self.class_wise(at),
                classes=self.classes_at_once or "auto"),
            optimizer=optax.sgd(self.learning_rate, momentum=self.momentum),
            steps=self.networks * self.uses, evaluation=at.protocol("dc"))
