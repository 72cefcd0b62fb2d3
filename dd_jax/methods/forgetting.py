"""Forgetting events: how often an image is right after one epoch and wrong after the next.

Toneva et al., An Empirical Study of Example Forgetting during Deep Neural Network Learning, ICLR
2019. An image that was never learned counts as forgotten most.

Differs from the official code: images are looked at after every epoch (there when their batch is
trained on), by several networks; equal counts are ordered by the probability of the label.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfDynamics


class Forgetting(OfDynamics):
    """Settings of forgetting events, those in `OfDynamics`."""
