"""EL2N: the distance of class probabilities from the label, mean of several networks.

Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021: of an early epoch, `until`.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfDynamics


class EL2N(OfDynamics):
    """Settings of EL2N, those in `OfDynamics`."""
