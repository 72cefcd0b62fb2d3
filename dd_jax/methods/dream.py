"""DREAM: Efficient Dataset Distillation by Representative Matching (Liu et al., ICCV 2023), on IDC.

IDC whose real batches, and whose start, are the images nearest to the centres of each class's
clusters. `distill.representative(recipe, data)` does that to any recipe; this method is the paper's
composition with IDC.

Differs from the official code: as IDC does, see `methods.idc`; the network embeds standardised
images, as in its training (there raw ones); k-means has a fixed number of iterations.
"""

from __future__ import annotations

import dataclasses

import jax

from dd_jax import nets
from dd_jax.data import standardise
from dd_jax.distill.recipe import Recipe
from dd_jax.distill.representative import representative
from dd_jax.methods import idc
from dd_jax.methods.record import Method, Published, default_depth, require_positive
from dd_jax.train import representatives
from dd_jax.types import RealData

_CITATION = (
    "Y. Liu, J. Gu, K. Wang, Z. Zhu, W. Jiang, Y. You. DREAM: Efficient Dataset Distillation by "
    "Representative Matching. ICCV 2023."
)


@dataclasses.dataclass(frozen=True)
class DREAM(idc.IDC):
    """Settings of DREAM: those of IDC and of the clustering; the defaults are the official ones.

    Attributes:
      every: iterations for which the representatives are kept.
      candidates: random images per class among which they are looked for; None for all.
      iterations: of k-means.
    """

    batch_size: int = 128
    every: int = 10
    candidates: int | None = None
    iterations: int = 20


def official(ipc: int) -> DREAM:
    """The settings of the official code."""
    return DREAM(ipc=ipc)


def cpu(ipc: int) -> DREAM:
    """Settings for five minutes on two CPU cores; fewer candidates keep the clustering cheap."""
    return dataclasses.replace(idc.narrow(official(ipc)), batch_size=64, candidates=256,
                               iterations=10)


def recipe(config: DREAM, data: RealData) -> Recipe:
    """DREAM: IDC's recipe with representative batches and a representative start.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "every")
    normaliser = standardise(data)

    def choose(data: RealData, key: jax.Array, count: int) -> jax.Array:
        network = nets.convnet(data.spec, depth=default_depth(data.spec, config.depth),
                               width=config.width)
        network_key, cluster_key = jax.random.split(key)
        variables = network.init(network_key)
        return representatives(
            data, lambda x: network.apply(variables, x).features, count=count, key=cluster_key,
            normaliser=normaliser, candidates=config.candidates, iterations=config.iterations,
        ).reshape(-1)

    plain = idc.recipe(config, data, choose=choose, method="dream", citation=_CITATION)
    return representative(plain, data, every=config.every, candidates=config.candidates,
                          iterations=config.iterations)


_SOURCE = "DREAM, as tabulated in DANCE"
METHOD = Method(
    name="dream",
    title="DREAM: Efficient Dataset Distillation by Representative Matching",
    config=DREAM,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("fashion_mnist", 1): Published(81.3, 0.2, _SOURCE),
        ("fashion_mnist", 10): Published(86.4, 0.3, _SOURCE),
        ("fashion_mnist", 50): Published(86.8, 0.3, _SOURCE),
        ("cifar10", 1): Published(51.1, 0.3, _SOURCE),
        ("cifar10", 10): Published(69.4, 0.4, _SOURCE),
        ("cifar10", 50): Published(74.8, 0.1, _SOURCE),
        ("cifar100", 1): Published(29.5, 0.3, _SOURCE),
        ("cifar100", 10): Published(46.8, 0.7, _SOURCE),
        ("cifar100", 50): Published(52.6, 0.4, _SOURCE),
    },
    citation=_CITATION,
)
