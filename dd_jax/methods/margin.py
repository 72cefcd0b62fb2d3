"""Margin: the least difference of the two largest class probabilities.

As Coleman et al., Selection via Proxy, ICLR 2020, choose by uncertainty.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfDynamics


class Margin(OfDynamics):
    """Settings of the margin, those in `OfDynamics`."""
