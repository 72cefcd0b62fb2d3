"""IDC: Dataset Condensation via Efficient Synthetic-Data Parameterization (Kim et al., ICML 2022).

Every stored image shows factor^2 images (1 is IDC-I); gradients of convolution weights on real and
shown images agree, class by class, along the training of random networks on real images.

Differs from the official code:
  - the images live in model space; SGD, its rate and the range [0, 1] are those of pixels all the
    same, and images are cut to the range after every step (there once per network);
  - the distance and the rate follow from the channels: those of Fashion-MNIST and CIFAR-10 (there
    by name; MNIST's rate is 1e-4 * ipc / 10, its matching for factor 2 is "idc_training");
  - shown images come image after image (there patch after patch); ImageNet's networks are left out;
  - evaluation: the accuracy of the last epoch, not the best one; with flips whatever the data
    ("idc_digits" has none) and no cutout even without CutMix.
"""

from __future__ import annotations

import optax

from dd_jax import pools
from dd_jax.data import real_rows
from dd_jax.methods.families.formed import Formed
from dd_jax.methods.frame import ConvNets, GradientDistance, Rate, Share, Site, Tested, Views, Whole
from dd_jax.objectives import gradient_matching
from dd_jax.transforms import decayed_momentum, within_range


class IDC(Formed, ConvNets, Tested):
    """Settings of IDC; the defaults are the official ones for small images.

    Attributes:
      networks, uses: random networks, one after another, and matching steps with each of them.
      learning_rate, momentum: of the SGD on pixels in [0, 1]; None: 1e-4 * ipc / 10 * (H / 32)^2
        for grey images, 5e-3 * ipc / 10 for colour ones.
      batch_size, most: real images per class and step, and most shown ones, a random choice.
      distance: None: "conv_absolute", or "conv_squared" in colour.
      train_images: real images that train the network after a step; None: 500, or 2000 in colour.
      network_rate, network_momentum, network_decay, network_batch_size: of its SGD.
      mix: probability of CutMix per batch, in training and in the evaluation.
      matching: a name in `augment.by_name`, shared by the real and shown images of a class.
    """

    networks: Whole = 2000
    uses: Whole = 100
    learning_rate: Rate | None = None
    momentum: Rate = 0.5
    batch_size: Whole = 64
    most: Whole = 128
    distance: GradientDistance | None = None
    train_images: Whole | None = None
    network_rate: Rate = 0.01
    network_momentum: Rate = 0.9
    network_decay: Rate = 5e-4
    network_batch_size: Whole = 64
    mix: Share = 0.5
    matching: Views = "idc_matching"
    augmentation: Views = "idc"
    evaluation_epochs: Whole = 1000

    presets = {
        "official": {},
        "cpu": {0: dict(uses=100, in_turn=False, most=20, learning_rate=lambda ipc: 1e-3 * ipc,
                        train_images=128, width=32, evaluation_width=32),
                1: dict(networks=5), 2: dict(networks=3, evaluation_epochs=200)},
    }

    def choose(self, at: Site):
        """(data, key, count) -> [K * count] rows, class-major, that the set starts from."""
        return real_rows

    def build(self, at: Site) -> dict:
        network = at.convnet()
        rate, distance, train_images = 1e-4 * (at.spec.shape[0] / 32) ** 2, "conv_absolute", 500
        if at.colour:
            rate, distance, train_images = 5e-3, "conv_squared", 2000
        pool = pools.inner_trained_pool(
            network, uses=self.uses, epochs=1, mix=self.mix, batch_size=self.network_batch_size,
            optimizer=decayed_momentum(self.network_rate, momentum=self.network_momentum,
                                       weight_decay=self.network_decay),
            # Cutout where there is no CutMix.
            augmentation=at.augmentation("idc_training" if self.mix else "idc_matching"))
        objective = gradient_matching(
            network, pool, batch_size=self.batch_size, most=self.most,
            distance=self.distance or distance, augmentation=at.augmentation(self.matching),
            train_rows=at.rows(self.train_images or train_images))
        rate = rate * self.ipc / 10 if self.learning_rate is None else self.learning_rate
        return dict(
            self.formed(at, objective, self.networks * self.uses, choose=self.choose(at)),
            optimizer=within_range(optax.sgd(rate, momentum=self.momentum), at.normaliser),
            evaluation=at.protocol("idc", schedule="milestones", batch_size=64, cutmix=self.mix))
