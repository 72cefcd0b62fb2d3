"""DeepFool: images nearest to a network's decision boundary.

Moosavi-Dezfooli, Fawzi and Frossard, DeepFool, CVPR 2016, as Ducoffe and Precioso, Adversarial
Active Learning for Deep Networks, 2018, choose by it.

Differs from the code that coresets are made with (DeepCore): steps go beyond the boundary by the
paper's 2 %, without which rounding decides whether it was crossed (there by nothing); an image that
never crosses comes last (there its short way counts as near); distances, not their squares, which
is the same order; a choice is made within classes by default (there over the set).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from dd_jax.distill.selection_needs import boundary
from dd_jax.methods.families.selection import Observed
from dd_jax.methods.frame import Rate, Site, Whole, one_of
from dd_jax.select import ORDERS, Selector
from dd_jax.select.boundary import MOST_IMAGES, deepfool
from dd_jax.select.looks import look_phase
from dd_jax.select.memory import Phase
from dd_jax.store.artefacts import Artefact


class DeepFool(Observed):
    """Settings of DeepFool.

    Attributes:
      max_steps: linear steps towards the boundary.
      overshoot: by which they go beyond it, as a share of the way.
      order: "top" takes the nearest images, "bottom" the farthest, "middle" a window between.
    """

    max_steps: Whole = 50
    overshoot: Rate = 0.02
    order: Annotated[str, one_of(ORDERS)] = "top"

    def selector(self) -> Selector:
        return deepfool(self.order)

    def shaping(self) -> dict:
        return dict(order=self.order)

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        return {"boundary": boundary(at.convnet(), self.taught(at), at.data, at.whitening,
                                     steps=self.max_steps, overshoot=self.overshoot,
                                     block=self.fitted(at).block)}

    def look(self, at: Site) -> Phase | None:
        return look_phase(at.convnet(), at.data, chunk=MOST_IMAGES, derivative=True)
