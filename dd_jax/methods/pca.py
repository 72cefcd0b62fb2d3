"""PCA, prune, combine, augment: the easiest real images, several to each stored one.

Rethinking Large-scale Dataset Compression: Shifting Focus From Labels to Images (2025): images with
the smallest EL2N are shrunk whole and pasted into a grid, as many bytes as images of full size;
networks are trained on the tiles, enlarged and augmented, with hard labels and no teacher.

Differs from the paper (its code is not released):
  - a network sees every tile of an image in an epoch (there one of them, drawn anew);
  - networks are tested as in DC, and augmented as in DSA (there crops inside the tile, and AdamW).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from dd_jax.data import grey
from dd_jax.errors import DataError
from dd_jax.methods.families.selection import OfDynamics, require_per_class
from dd_jax.methods.frame import Normalisation, Site, Views, Whole, one_of
from dd_jax.select import ORDERS, Budget
from dd_jax.synthetic import Labels, multi_formation, pasted_start, pixels
from dd_jax.types import RealData


class PCA(OfDynamics):
    """Settings of PCA, those in `OfDynamics`, of which budgets other than `ipc` are refused.

    Attributes:
      factor: tiles per side of a stored image, which shows factor^2 real ones.
    """

    factor: Whole = 2
    order: Annotated[str, one_of(ORDERS)] = "bottom"
    augmentation: Views = "dsa"
    normaliser: Normalisation = "published_cifar"

    def score(self) -> str:
        return "el2n"

    def budget(self) -> Budget:
        require_per_class(self, "grids hold factor^2 images of one class")
        return Budget(self.ipc * self.factor**2)

    def check(self, at: Site) -> None:
        counts, least = np.asarray(at.data.class_counts), self.budget().per_class
        if counts.min() < least:
            raise DataError(f"class {counts.argmin()} has {counts.min()} images, expected at least "
                            f"{least}, {self.factor**2} for each stored one",
                            fix="pass a smaller ipc, or factor=1")
        super().check(at)

    def images_per_class(self, data: RealData) -> float:
        return super().images_per_class(data) / self.factor**2

    def build(self, at: Site) -> dict:
        rows = np.asarray(at.have["chosen"].rows)
        made = super().build(at)
        del made["finalise"], made["notes"]["stored_bytes"]  # tiles are means of pixels
        return {**made, "labels": Labels(), "start": pasted_start(
            at.normaliser, ipc=self.ipc, factor=self.factor, interpolation="bilinear",
            choose=lambda data, key, count: rows),
            "parameterization": multi_formation(pixels(labels="fixed"), factor=self.factor,
                                                fill=grey(at.normaliser, 0.5))}
