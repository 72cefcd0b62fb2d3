"""Influence distillation: images whose gradients are along those of held-out images of each class.

Nikdan, Cohen-Addad, Alistarh and Mirrokni, Efficient Data Selection at Scale via Influence
Distillation, 2025: its first order for a small network, since the released code has no second one.
Gradients are those of the last layer, exact where the code sketches those of some layers; features
are what the kernel compares. Classes take turns over the whole set, which balances them but for the
images that help another class; with within="class" a class's images are those of the largest
influence on it.

Differs from the official code: there targets are another data set, here a drawn share of the real
images, which the network has been trained on, and which are chosen only where all others are; all
weights are 1 (there the score, which may be below 0); no preconditioner, as of gradient descent.
"""

from __future__ import annotations

from typing import Annotated

from dd_jax.methods.families.selection import OfGradients
from dd_jax.methods.frame import Rate, Share, Whole, one_of
from dd_jax.select import Selector
from dd_jax.select.budget import WITHIN
from dd_jax.select.influence import influence


class InfluenceDistillation(OfGradients):
    """Settings of influence distillation.

    Attributes:
      held_out: share of each class whose mean gradients are the targets, at least one image.
      landmarks: images whose influence is computed; a kernel gives that of all others.
      damping: of the kernel, as a share of its diagonal.
    """

    within: Annotated[str, one_of(WITHIN)] = "set"
    held_out: Share = 0.1
    landmarks: Whole = 4096
    damping: Rate = 0.01

    def selector(self) -> Selector:
        return influence(self.held_out, landmarks=self.landmarks, damping=self.damping)

    def shaping(self) -> dict:
        return dict(held_out=self.held_out, landmarks=self.landmarks, damping=self.damping)
