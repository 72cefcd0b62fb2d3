"""CW-ERM: a moderate coreset with weights that a Meta-Weight-Net learns on it alone.

Jafari et al., The Power of Few, ICASSP 2024. The set holds the coreset's images with their weights;
`select.whole_set_weights` hands these on to all real images, class by class, for training on them.

Differs from the official code: features are of a network trained on the data (there on ImageNet);
the network's virtual and real steps are plain ones of one rate, as the paper writes them (there
with momentum, weight decay and a falling rate); weights are those after the last step, in
evaluation mode (there after the first epoch, in training mode); each class keeps an image to be
trained on. Rates and numbers of steps are not published.
"""

from __future__ import annotations

from collections.abc import Mapping

import optax

from dd_jax.distill.selection_needs import chosen, reweighted
from dd_jax.methods.families.selection import OfFeatures
from dd_jax.methods.frame import Rate, Seed, Site, Whole
from dd_jax.select import MetaWeights, Selector, selectors
from dd_jax.store.artefacts import Artefact


class CWERM(OfFeatures):
    """Settings of CW-ERM.

    Attributes:
      weight_steps: in which weights are learned.
      weight_batch_size: images per step, and images that judge in it.
      weight_rate: of the network whose losses are weighed.
      weight_net_rate: of Adam, for the network that weighs.
      weight_net_width: hidden units of it.
      weight_seed: of the learning.
    """

    weight_steps: Whole = 2000
    weight_batch_size: Whole = 100
    weight_rate: Rate = 0.1
    weight_net_rate: Rate = 1e-3
    weight_net_width: Whole = 100
    weight_seed: Seed = 0

    presets = {
        "official": {},
        "cpu": {0: dict(width=32, evaluation_width=32, evaluation_epochs=None, network_epochs=3,
                        weight_steps=300, weight_batch_size=32)},
    }

    def selector(self) -> Selector:
        return selectors.moderate()

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        coreset = chosen("moderate", self.fitted(at).selector, at.data, self.budget(), settings={},
                         seed=self.choice_seed,
                         needs={"normaliser": at.whitening, **self.looks(at)})
        by = MetaWeights(at.convnet(), self.weight_rate, optax.adam(self.weight_net_rate),
                         self.weight_batch_size, self.weight_net_width)
        return {"chosen": reweighted(
            by, coreset, at.data, self.budget(), at.whitening, steps=self.weight_steps,
            settings=dict(rate=self.weight_rate, net_rate=self.weight_net_rate),
            seed=self.weight_seed)}
