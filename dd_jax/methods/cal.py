"""CAL: images near to others by their features, of which a network says something else.

Margatina et al., Active Learning by Acquiring Contrastive Examples, EMNLP 2021.

Differs from the paper: all images have labels, so neighbours are other real images (there labelled
ones, of candidates without a label), of the same class by default; one round of choice.
Differs from the code that coresets are made with (DeepCore): features are of the network that says
the probabilities (there of one trained on ImageNet); the divergence of the paper, where that code
has the symmetric one, which is a setting; the most contrastive images first, where that code takes
the least contrastive ones, which order="bottom" does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from dd_jax.distill.selection_needs import logits
from dd_jax.methods.families.selection import OfFeatures
from dd_jax.methods.frame import Site, Whole, one_of
from dd_jax.select import ORDERS, Selector
from dd_jax.select.contrastive import AMONG, DIVERGENCES, cal
from dd_jax.store.artefacts import Artefact


class CAL(OfFeatures):
    """Settings of CAL.

    Attributes:
      neighbours: of each image.
      among: where they are looked for, the image's own "class" or the whole "set".
      towards: "neighbour", the divergence from the image to the neighbour, or "symmetric".
      order: "top" takes the most contrastive images, "bottom" the least, "middle" a window between.
    """

    neighbours: Whole = 10
    among: Annotated[str, one_of(AMONG)] = "class"
    towards: Annotated[str, one_of(DIVERGENCES)] = "neighbour"
    order: Annotated[str, one_of(ORDERS)] = "top"

    def selector(self) -> Selector:
        return cal(**self.shaping())

    def shaping(self) -> dict:
        return dict(neighbours=self.neighbours, among=self.among, towards=self.towards,
                    order=self.order)

    def looks(self, at: Site) -> Mapping[str, Artefact]:
        said = logits(at.convnet(), self.taught(at), at.data, at.whitening,
                      block=self.fitted(at).block)
        return {**super().looks(at), "logits": said}
