"""CRAIG: images whose gradients stand for those of the images nearest to them, and count as many.

Mirzasoleiman, Bilmes and Leskovec, Coresets for Data-efficient Training of Machine Learning Models,
ICML 2020.

Differs from the code that tables are made with (DeepCore): a weight is the number of the images
nearest to a pick, which the pick is one of, so that weights sum to the number of images (there one
more for each pick); chosen once (there, in the authors' code, again every few epochs); the constant
from which distances are taken is left out, since it changes no choice.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfGradients
from dd_jax.select import Selector
from dd_jax.select.gradient_selectors import craig


class CRAIG(OfGradients):
    """Settings of CRAIG, those in `OfGradients`."""

    def selector(self) -> Selector:
        return craig()
