"""Dataset cartography: how sure networks are of a label over epochs, and how much that varies.

Swayamdipta et al., Dataset Cartography, EMNLP 2020: the most ambiguous images by default.

Differs from the official code: images are looked at in evaluation mode after every epoch (there
during it); means over several networks; a choice is made within classes.
"""

from __future__ import annotations

from typing import Annotated

from dd_jax.methods.families.selection import OfDynamics
from dd_jax.methods.frame import one_of


class Cartography(OfDynamics):
    """Settings of dataset cartography.

    Attributes:
      measure: "variability" (the most ambiguous first), "confidence" or "correctness" (the least
        sure or least often right first).
    """

    measure: Annotated[str, one_of(("variability", "confidence", "correctness"))] = "variability"

    def score(self) -> str:
        return self.measure
