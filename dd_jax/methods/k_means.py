"""k-means: the images nearest to the centres of each class's clusters, as in DC-BENCH."""

from __future__ import annotations

from dd_jax.methods.families.selection import OfFeatures
from dd_jax.methods.frame import Whole
from dd_jax.select import Selector, selectors


class KMeans(OfFeatures):
    """Settings of k-means.

    Attributes:
      iterations: of Lloyd's algorithm.
    """

    iterations: Whole = 10

    def selector(self) -> Selector:
        return selectors.k_means(self.iterations)

    def shaping(self) -> dict:
        return dict(iterations=self.iterations)
