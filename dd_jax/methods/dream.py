"""DREAM: Efficient Dataset Distillation by Representative Matching (Liu et al., ICCV 2023), on IDC.

IDC whose real batches, and whose start, are the images nearest to the centres of each class's
clusters. `distill.representative(recipe, data)` does that to any recipe; this method is the paper's
composition with IDC.

Differs from the official code: as IDC does, see `methods.idc`; the network embeds standardised
images, as in its training (there raw ones); k-means has a fixed number of iterations; the start's
clusters are an artefact with a seed of its own; Tiny-ImageNet has the batches of the rest (there
64).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.data import require_on_device
from dd_jax.distill.needs import architecture, arrays
from dd_jax.distill.recipe import Recipe
from dd_jax.distill.representative import representative
from dd_jax.methods import idc
from dd_jax.methods.frame import Seed, Site, Whole
from dd_jax.train.representatives import check_selection, representatives


class DREAM(idc.IDC):
    """Settings of DREAM: those of IDC and of the clustering; the defaults are the official ones.

    Attributes:
      every: iterations for which the representatives are kept.
      candidates: random images per class among which they are looked for; None for all.
      iterations: of k-means.
      start_seed: of the clusters that the set starts from.
    """

    batch_size: Whole = 128
    network_batch_size: Whole = 128
    every: Whole = 10
    candidates: Whole | None = None
    iterations: Whole = 20
    start_seed: Seed = 0

    presets = {
        "official": {},
        "cpu": {**idc.IDC.presets["cpu"],
                # Fewer candidates keep the clustering cheap.
                0: dict(idc.IDC.presets["cpu"][0], batch_size=64, network_batch_size=64,
                        candidates=256, iterations=10)},
    }

    def check(self, at: Site) -> None:
        super().check(at)
        require_on_device(at.data, "the choice of representatives")
        check_selection(self._count(), **self._clusters(), subsample=1)

    def _count(self) -> int:
        return self.ipc * self.factor**2

    def _clusters(self) -> dict:
        return dict(candidates=self.candidates, iterations=self.iterations)

    def needs(self, at: Site) -> dict:
        network, count = at.convnet(), self._count()

        def compute(data, key, normaliser):
            network_key, cluster_key = jax.random.split(key)
            variables = network.init(network_key)
            return representatives(
                data, lambda x: network.apply(variables, x).features, count=count,
                key=cluster_key, normaliser=normaliser, **self._clusters())

        rows = jax.ShapeDtypeStruct((at.classes, count), jnp.int32)
        settings = {**architecture(network), **self._clusters(), "count": count}
        return {"clusters": arrays("clustering", settings, compute, lambda: rows,
                                   needs={"normaliser": at.whitening}, seed=self.start_seed)}

    def choose(self, at: Site):
        rows = at.have["clusters"].reshape(-1)
        return lambda data, key, count: rows

    def finish(self, recipe: Recipe, at: Site) -> Recipe:
        return representative(recipe, at.data, every=self.every, **self._clusters())
