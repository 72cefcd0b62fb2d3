"""DataDAM: Efficient Dataset Distillation with Attention Matching (Sajedi et al., ICCV 2023).

Class means of random networks' spatial attention, block by block, and of their last features;
shared augmentation, SGD on the pixels.

The paper's table and the authors' code differ: the table has attention of power 4, instance
normalisation and 8,000 steps, the code power 1, batch normalisation and 20,000 steps, and the
authors advise batch normalisation. Preset "official" is the code, "paper" the table.

Differs from the official code:
  - the start is random real images, not the authors' stored choice for CIFAR-10;
  - CIFAR is whitened, which the authors ask for and their code leaves to a flag; a distilled set
    carries its normaliser, so its images are never tested against unwhitened ones;
  - one drop of the rate in the evaluation, as in the code (a table of the paper has another
    schedule); the accuracy of its last epoch, not the best one over time.
"""

from __future__ import annotations

import optax

from dd_jax import pools
from dd_jax.errors import require_whole
from dd_jax.methods.frame import NormedConvNets, Pixels, Site, Tested
from dd_jax.methods.frame.fields import Norm, Normalisation, Rate, Whole
from dd_jax.objectives import attention, distribution_matching
from dd_jax.types import DataSpec

# Where the authors ask for whitening, and for which.
_WHITENED = {"cifar10": "zca_absolute", "cifar100": "zca_absolute"}


class DataDAM(Pixels, NormedConvNets, Tested):
    """Settings of DataDAM; the defaults are those of the official code.

    Attributes:
      steps: outer steps.
      learning_rate, momentum: of the SGD on the pixels.
      batch_size: real images per class and step.
      power: of the activations in the attention.
      feature_weight: of the distance of mean features beside those of attention, which lie between
        0 and 4 for each class and block; 0.02 for large images.
      scale: multiplies the loss.
      normaliser: a name in `data.normalisers`; None: whiten CIFAR, standardise the rest.
      evaluation_norm: normalisation of the networks that test the set.
    """

    steps: Whole = 20_000
    learning_rate: Rate = 1.0
    momentum: Rate = 0.5
    batch_size: Whole = 64
    power: Whole = 1
    feature_weight: Rate = 0.01
    scale: Rate = 100.0
    norm: Norm = "batch"
    normaliser: Normalisation | None = None
    evaluation_norm: Norm = "batch"
    evaluation_epochs: Whole | None = 1801

    least_classes = 1
    presets = {
        "official": {51: dict(learning_rate=10.0)},
        "paper": {0: dict(steps=8000, power=4, norm="instance", evaluation_norm="instance")},
        "cpu": {"over": "paper",
                0: dict(steps=2000, width=32, evaluation_width=32,
                        evaluation_epochs=None)},
    }

    def whitening(self, spec: DataSpec) -> str:
        """The normaliser of colour images."""
        return _WHITENED.get(spec.name, "published")

    def check(self, at: Site) -> None:
        require_whole("depth", at.depth, least=2)  # attention is that of all blocks but the last

    def build(self, at: Site) -> dict:
        network = at.convnet()
        return dict(
            objective=distribution_matching(
                network, pools.fresh_pool(network),
                attention(power=self.power, weight=self.feature_weight),
                batch_size=self.batch_size, scale=self.scale, augmentation=at.augmentation(),
            ),
            optimizer=optax.sgd(self.learning_rate, momentum=self.momentum),
            evaluation=at.protocol("datadam", norm=self.evaluation_norm, batch_size=64),
        )
