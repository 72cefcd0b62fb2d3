"""Dataset quantization: each class in bins from the usual to the odd, and a share of each bin.

Zhou et al., Dataset Quantization, ICCV 2023: its selection. The second step of the paper, in which
each image keeps a part of its patches and a masked autoencoder paints the others, is left out: the
autoencoder is one of 224 x 224 pixels trained on ImageNet, and what it makes of small images is
reported to train worse than the images themselves. So a set has whole images, and takes their
bytes.

Differs from the official code: gradients are of the cross-entropy (there of one of probabilities
that go through the softmax twice), of a ConvNet trained on the images (there a ResNet-18, or one of
ImageNet with a random last layer); the rows are in the order of choice; where bins do not divide a
class or a budget, the first bins have and give one more.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfGradients
from dd_jax.methods.frame import Rate, Whole
from dd_jax.select import Selector
from dd_jax.select.gradient_selectors import dq


class DQ(OfGradients):
    """Settings of dataset quantization.

    Attributes:
      bins: into which a class is cut.
      weight: of the likeness to what earlier bins left.
    """

    bins: Whole = 10
    weight: Rate = 1.0

    def selector(self) -> Selector:
        return dq(self.bins, self.weight)

    def shaping(self) -> dict:
        return dict(bins=self.bins, weight=self.weight)
