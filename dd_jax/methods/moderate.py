"""Moderate coreset: images in the middle of the distances to their class's median feature.

Xia et al., Moderate Coreset, ICLR 2023.

Differs from the official code: the network is trained on the data (there on ImageNet); the order is
from the middle of the window outwards, so that a larger choice holds a smaller one.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfFeatures


class Moderate(OfFeatures):
    """Settings of the moderate coreset, those in `OfFeatures`."""
