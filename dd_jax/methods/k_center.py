"""k-center greedy: each image is the one that is farthest from those that were chosen.

Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR
2018.

Differs from the code that tables are made with (DeepCore): the first image is the one nearest to
the mean, which is a setting (there a random one).
"""

from __future__ import annotations

from typing import Annotated

from dd_jax.methods.families.selection import OfFeatures
from dd_jax.methods.frame import one_of
from dd_jax.select import Selector, selectors


class KCenter(OfFeatures):
    """Settings of k-center greedy.

    Attributes:
      first: the image to begin with, the one nearest to the "mean", or a "random" one.
    """

    first: Annotated[str, one_of(("mean", "random"))] = "mean"

    def selector(self) -> Selector:
        return selectors.k_center(self.first)

    def shaping(self) -> dict:
        return dict(first=self.first)
