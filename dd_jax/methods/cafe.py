"""CAFE: Learning to Condense Dataset by Aligning Features (Wang et al., CVPR 2022).

Class means of all layers of a network agree on real and synthetic images, and real images can be
classified by the synthetic centres; a network serves until its accuracy stands still, and is
trained on the synthetic set until it moves. With `augmentation="dsa"` it is CAFE+DSA.

Differs from the official code:
  - the number of steps is fixed, `networks * uses`, whereas networks come and go by their accuracy:
    the rate is halved after 60, 80 and 90 per cent of the steps (there after 1200, 1600 and 1800 of
    2000 networks), and `uses` only says how many steps a network is expected to serve;
  - both loops end at the latest after `max_uses` steps and `max_epochs` passes (there never);
  - an accuracy is the plain mean over classes (there a part of the one before leaks into it), on
    images drawn with replacement from those of the step (there on new images every time);
  - cross-entropy of real images, which has no derivative in the set, is left out;
  - every block but the last has the weight of the first ones, whatever the depth (there 3);
  - a class smaller than the real batch is gone through again.
"""

from __future__ import annotations

import optax

from dd_jax.errors import ConfigError
from dd_jax.methods.frame import NormedConvNets, Pixels, Site, Tested
from dd_jax.methods.frame.fields import Normalisation, Rate, Start, Views, Whole
from dd_jax.objectives.layer_matching import layer_matching
from dd_jax.objectives.matching import require_several_classes
from dd_jax.pools.plateau import plateau_pool

_HALVED = (0.6, 0.8, 0.9)  # shares of the steps after which the rate is halved
_EPOCHS = 601  # of the official test without augmentation
_SUMMED = 256  # real images of each class over which the official code sums the discrimination


class CAFE(Pixels, NormedConvNets, Tested):
    """Settings of CAFE; the defaults are the official ones. No batch normalisation.

    Attributes:
      networks, uses: the outer steps are `networks * uses`, as for `uses` steps with each network;
        with official windows two networks of width 32 served 25 and 16 on Fashion-MNIST.
      max_uses: steps after which a network is replaced in any case.
      max_epochs: passes over the set after which a training of a network ends in any case.
      window: accuracies in a full window.
      still: a network is replaced once the range of its window is below this.
      moved: a training ends once the range of its own window is above this.
      measure_size: real images per class and step that accuracies are measured on.
      learning_rate, momentum: of the SGD on the pixels; the rate is halved three times.
      batch_size: real images per class and step.
      early_weight, last_weight: of the ReLU outputs of all blocks but the last, and of the last.
      feature_weight: of the features, which the official code counts twice.
      discrimination: of the cross-entropies of real images by the synthetic centres, summed over
        256 of each class; those of a batch of another size count as many.
      network_rate, network_batch_size: of the SGD that trains networks.
      evaluation_epochs: of the networks that test the set; the official 601 stand for 1001 where
        there is an augmentation.
    """

    networks: Whole = 2000
    uses: Whole = 20
    max_uses: Whole = 100
    max_epochs: Whole = 100
    window: Whole = 10
    still: Rate = 0.04
    moved: Rate = 0.03
    measure_size: Whole = 128
    learning_rate: Rate = 0.1
    momentum: Rate = 0.5
    batch_size: Whole = 256
    early_weight: Rate = 0.1
    last_weight: Rate = 1.0
    feature_weight: Rate = 2.0
    discrimination: Rate = 0.01
    network_rate: Rate = 0.01
    network_batch_size: Whole = 256
    start: Start = "noise"
    normaliser: Normalisation = "published_cifar"
    augmentation: Views = "none"
    evaluation_epochs: Whole | None = _EPOCHS

    presets = {
        "official": {},
        # Accuracies are measured on a quarter of the images: their noise is twice as large, and so
        # are the ranges that it is compared with. A narrow network has a smaller gradient, and of
        # ten images each has a tenth of the mean; noise is not left behind in so few steps.
        "cpu": {0: dict(networks=60, uses=10, max_uses=20, max_epochs=20, window=5, still=0.08,
                        moved=0.06, measure_size=32, batch_size=64, width=32, start="real",
                        learning_rate=lambda ipc: 0.25 * ipc, evaluation_width=32,
                        evaluation_epochs=None)},
    }

    def check(self, at: Site) -> None:
        if self.norm == "batch":
            raise ConfigError("norm is 'batch', but layers are matched class by class",
                              fix="pass norm='instance'")
        require_several_classes(at.classes, "accuracies over one never move, and its "
                                "discrimination is zero", instead="use method 'dm'")

    def build(self, at: Site) -> dict:
        network, augmentation = at.convnet(), at.augmentation()
        pool = plateau_pool(
            network, max_uses=self.max_uses, max_epochs=self.max_epochs, window=self.window,
            still=self.still, moved=self.moved, optimizer=optax.sgd(self.network_rate),
            batch_size=self.network_batch_size, augmentation=augmentation)
        steps = self.networks * self.uses
        rate = optax.piecewise_constant_schedule(
            self.learning_rate, {round(share * steps): 0.5 for share in _HALVED})
        long = (self.augmentation != "none" and self.evaluation_epochs == _EPOCHS
                and self.evaluation_steps is None)
        return dict(
            objective=layer_matching(
                network, pool, weights=(self.early_weight,) * (at.depth - 1) + (self.last_weight,),
                feature_weight=self.feature_weight,
                discrimination=self.discrimination * _SUMMED / self.batch_size,
                batch_size=self.batch_size, measure_size=self.measure_size,
                augmentation=augmentation,
            ),
            optimizer=optax.sgd(rate, momentum=self.momentum),
            steps=steps,
            evaluation=at.protocol("dc", **(dict(epochs=1001) if long else {})),
        )
