"""GraNd: the norm of the gradient of an image's loss, mean of several networks.

Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021.

Differs from the official code: the gradient is that of the last layer, in closed form, unless
gradient="all" is asked for.
"""

from __future__ import annotations

from typing import Annotated

from dd_jax.methods.families.selection import OfDynamics
from dd_jax.methods.frame import Site, one_of
from dd_jax.select.dynamics import GRADIENTS, MOST_NUMBERS, Recording
from dd_jax.select.memory import NUMBER, Phase


class GraNd(OfDynamics):
    """Settings of GraNd.

    Attributes:
      gradient: of the "last_layer", by networks that all scores share; or in "all" parameters, for
        which networks are recorded anew and each image's gradient is computed after each epoch.
    """

    gradient: Annotated[str, one_of(GRADIENTS)] = "last_layer"

    def recording(self, at: Site) -> Recording:
        return super().recording(at)._replace(gradient=self.gradient)

    def look(self, at: Site) -> Phase | None:
        phase = super().look(at)
        if self.gradient == "last_layer":
            return phase
        return phase._replace(arrays=lambda sizes: {
            **phase.arrays(sizes), "gradients": NUMBER * MOST_NUMBERS})
