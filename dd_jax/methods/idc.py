"""IDC: Dataset Condensation via Efficient Synthetic-Data Parameterization (Kim et al., ICML 2022).

Every stored image shows factor^2 images (1 is IDC-I); gradients of convolution weights on real and
shown images agree, class by class, along the training of random networks on real images.

Differs from the official code: as `families.formed` and, for data that it does not know,
`families.idc_by_data` say; and
  - ImageNet's networks are left out;
  - evaluation: no cutout even without CutMix, and SVHN with one image of factor 1 like the others
    (there without CutMix).
"""

from __future__ import annotations

import optax

from dd_jax import pools
from dd_jax.data import real_rows
from dd_jax.methods.families.idc_by_data import ByData
from dd_jax.methods.frame import ConvNets, Rate, Site, Tested, Views, Whole
from dd_jax.objectives import gradient_matching
from dd_jax.transforms import decayed_momentum, within_range


class IDC(ByData, ConvNets, Tested):
    """Settings of IDC, those in `ByData` and more; the defaults are official, for small images.

    Attributes:
      networks, uses: random networks, one after another, and matching steps with each of them.
      momentum: of the SGD on pixels in [0, 1].
      batch_size, most: real images per class and step, and most shown ones, a random choice.
      classes_at_once: see `methods.dc`.
      network_rate, network_momentum, network_decay, network_batch_size: of the SGD that
        trains a network on real images after a step.
    """

    networks: Whole = 2000
    uses: Whole = 100
    momentum: Rate = 0.5
    batch_size: Whole = 64
    most: Whole = 128
    classes_at_once: Whole | None = None
    network_rate: Rate = 0.01
    network_momentum: Rate = 0.9
    network_decay: Rate = 5e-4
    network_batch_size: Whole = 64
    augmentation: Views = "idc"
    evaluation_epochs: Whole | None = 1000

    presets = {
        "official": {},
        "cpu": {0: dict(in_turn=False, most=20, learning_rate=lambda ipc: 1e-3 * ipc,
                        train_images=128, width=32, evaluation_width=32,
                        evaluation_epochs=None),
                1: dict(networks=5, uses=100),
                2: dict(networks=24, uses=25, learning_rate=lambda ipc: 5e-4 * ipc)},
    }

    def choose(self, at: Site):
        """(data, key, count) -> [K * count] rows, class-major, that the set starts from."""
        return real_rows

    def build(self, at: Site) -> dict:
        network, usual = at.convnet(), self.usual(at)
        mix, matching = usual["mix"], at.augmentation(usual["matching"])
        pool = pools.inner_trained_pool(
            network, uses=self.uses, epochs=1, mix=mix, batch_size=self.network_batch_size,
            optimizer=decayed_momentum(self.network_rate, momentum=self.network_momentum,
                                       weight_decay=self.network_decay),
            # Cutout where there is no CutMix.
            augmentation=at.augmentation("idc_training") if mix else matching)
        objective = gradient_matching(
            network, pool, batch_size=self.batch_size, most=self.most,
            distance=usual["distance"], augmentation=matching,
            train_rows=at.rows(usual["train_images"]), classes=self.classes_at_once or "auto")
        sgd = optax.sgd(usual["learning_rate"], momentum=self.momentum)
        return dict(
            self.formed(at, objective, self.networks * self.uses, choose=self.choose(at)),
            optimizer=within_range(sgd, at.normaliser),
            evaluation=at.protocol("idc", schedule="milestones", batch_size=64, cutmix=mix))
