"""GraNd: the norm of the gradient of an image's loss, mean of several networks.

Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021.

Differs from the official code: the gradient is that of the last layer, in closed form.
"""

from __future__ import annotations

from dd_jax.methods.families.selection import OfDynamics


class GraNd(OfDynamics):
    """Settings of GraNd, those in `OfDynamics`."""
