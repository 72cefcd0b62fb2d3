"""Least confidence: the smallest probability of the most probable class.

As Coleman et al., Selection via Proxy, ICLR 2020, choose by uncertainty. Probabilities, where the
code that tables are made with (DeepCore) has logits.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfDynamics


class LeastConfidence(OfDynamics):
    """Settings of least confidence, those in `OfDynamics`."""
