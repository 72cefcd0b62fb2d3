"""Ridge regression on the features of ageing networks: what FRePo and RCIG have in common.

Differs from the official codes: the pool is one stacked tree on the device (in RCIG's code on the
host), renewed inside the compiled step. In RCIG's pool, too, ages start staggered, and a network
that has done its 100 steps serves once more before it is renewed.
"""

from __future__ import annotations

from typing import Any

import optax

from dd_jax import nets, pools
from dd_jax.evaluate.protocol import Protocol
from dd_jax.methods.families.tests import frepo_test
from dd_jax.methods.frame import LabelHead, NormedConvNets, Rate, Site, Whitened, Whole
from dd_jax.types import Network, Pool


class FeatureSettings(Whitened, NormedConvNets):
    """Settings of the regression; the defaults are FRePo's. ConvNets double their width.

    Attributes:
      batch_size: real images per step.
      pool_size, max_age, pool_rate: networks kept, steps until one is renewed, their Adam rate.
      labels: "learned", "fixed" or "soft".
      flip: extend the set by its mirror images; None: sets of colour images that are small enough.
      evaluation_width: width of the networks that test the set.
      evaluation_steps: steps they are trained for; None: as many as is official for such a set.
      evaluation_rate: their Adam's peak rate.
    """

    batch_size: Whole = 1024
    pool_size: Whole = 10
    max_age: Whole = 100
    pool_rate: Rate = 3e-4
    labels: LabelHead = "learned"
    flip: bool | None = None
    evaluation_width: Whole = 128
    evaluation_steps: Whole | None = None
    evaluation_rate: Rate = 3e-4

    def mirrored(self, at: Site, *, most: int) -> bool:
        """Whether the set is mirrored: as `flip` says, or if it has up to `most` colour images."""
        return (at.colour and at.images <= most) if self.flip is None else self.flip

    def network(self, at: Site, **options: Any) -> Network:
        """The network of the settings; `options` are those of `nets.convnet_doubling`."""
        return nets.convnet_doubling(at.spec, depth=at.depth, width=self.width, norm=self.norm,
                                     **options)

    def pool(self, network: Network, **options: Any) -> Pool:
        """The pool of the settings; `options` are those of `pools.ageing_pool`."""
        usual = dict(size=self.pool_size, max_age=self.max_age,
                     optimizer=optax.adam(self.pool_rate))
        return pools.ageing_pool(network, **{**usual, **options})

    def test(self, at: Site, **options: Any) -> Protocol:
        """FRePo's test of the set; `options` are those of `frepo_test`."""
        usual = dict(width=self.evaluation_width, steps=self.evaluation_steps,
                     learning_rate=self.evaluation_rate, flip=at.colour)
        return frepo_test(at, **{**usual, **options})
