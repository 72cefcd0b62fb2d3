"""Entropy: the largest entropy of the class probabilities.

As Coleman et al., Selection via Proxy, ICLR 2020, choose by uncertainty.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfDynamics


class Entropy(OfDynamics):
    """Settings of the entropy, those in `OfDynamics`."""
