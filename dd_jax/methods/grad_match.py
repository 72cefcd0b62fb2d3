"""GradMatch: weighted images whose gradients sum to the mean gradient of their class.

Killamsetty et al., GRAD-MATCH: Gradient Matching based Data Subset Selection for Efficient Deep
Model Training, ICML 2021: orthogonal matching pursuit, image by image.

Differs from the code that tables are made with (DeepCore): the first weight is regularised like all
later ones; the last weights minimise the matching loss itself over w >= 0 (there the squared error
of its normal equations), and have a mean of 1 in each class, so that no class counts less than
another by its regulariser; an image whose weight is 0 keeps its place with this weight (there it is
dropped), so that the budget is exact. Chosen once (the authors: again every few epochs).
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfGradients
from dd_jax.methods.frame import Rate
from dd_jax.select import Selector
from dd_jax.select.gradient_selectors import grad_match


class GradMatch(OfGradients):
    """Settings of GradMatch.

    Attributes:
      ridge: of the weights; the published 1 is much, where gradients are small.
    """

    ridge: Rate = 1.0

    def selector(self) -> Selector:
        return grad_match(self.ridge)

    def shaping(self) -> dict:
        return dict(ridge=self.ridge)
