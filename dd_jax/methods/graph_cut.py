"""Graph cut: like all images, and unlike those that were chosen (Iyer et al., ALT 2021).

Differs from the code that tables are made with (DeepCore): likeness is of a network's features
(there of the last layer's gradients).
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfFeatures
from dd_jax.methods.frame import Rate
from dd_jax.select import Selector, selectors


class GraphCut(OfFeatures):
    """Settings of graph cut.

    Attributes:
      weight: of the likeness to all images.
    """

    weight: Rate = 1.0

    def selector(self) -> Selector:
        return selectors.graph_cut(self.weight)

    def shaping(self) -> dict:
        return dict(weight=self.weight)
