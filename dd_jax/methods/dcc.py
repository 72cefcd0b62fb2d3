"""DCC: Dataset Condensation with Contrastive Signals (Lee et al., ICML 2022).

The gradients of all classes are averaged before they are matched, once, so that what distinguishes
classes counts; a warm-up matches class by class as DC does.

Differs from the official code: as DC does, see `methods.dc`.
"""

from __future__ import annotations

from dd_jax.errors import ConfigError
from dd_jax.methods import dc
from dd_jax.methods.frame import Normalisation, Seed, Site, Start, Whole
from dd_jax.objectives.matching import require_several_classes


class DCC(dc.DC):
    """Settings of DCC: those of DC and of its warm-up; the defaults are the official ones.

    Attributes:
      warm_networks, warm_uses: matching is class by class in the first `warm_uses` steps of each of
        the first `warm_networks` networks; 0 of either for none.
    """

    uses: Whole = 10
    epochs: Whole = 5
    start: Start = "real"
    normaliser: Normalisation = "published_cifar"
    warm_networks: Seed = 250
    warm_uses: Seed = 10

    presets = {
        "official": {**dc.LOOPS, 1: dict(uses=10, epochs=5)},
        "cpu": {0: dict(dc.NARROW, warm_networks=6), 1: dict(networks=50, uses=10, epochs=5),
                2: dc.SEVERAL},
    }

    def check(self, at: Site) -> None:
        require_several_classes(at.classes, "there is no contrast to match",
                                instead="use method 'dm'")
        if self._warms() and (self.warm_uses > self.uses or self.warm_networks > self.networks):
            raise ConfigError(
                f"the warm-up of {self.warm_networks} networks and {self.warm_uses} uses is longer "
                f"than the run of {self.networks} and {self.uses}",
                fix="pass smaller warm_networks and warm_uses",
            )

    def _warms(self) -> bool:
        return self.warm_networks * self.warm_uses > 0

    def class_wise(self, at: Site):
        def warming_up(pool):
            return (pool.renewals < self.warm_networks) & (pool.uses < self.warm_uses)

        return warming_up if self._warms() else False
