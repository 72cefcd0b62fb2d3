"""The record of a finished distilled set, and its size in the currency of the papers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.data.normalise import Normaliser
from dd_jax.types import DataSpec, SyntheticSet


@dataclasses.dataclass(frozen=True, eq=False)
class DistilledSet:
    """A synthetic set with everything that is needed to use it, repeat it and cite it.

    Attributes:
      synthetic: images [M, H, W, C] in model space, labels [M, K], learned rate(s) or None.
      normaliser: what turns images in [0, 1] into model space, and back.
      label_kind: "one_hot", "centred" (one-hot minus 1/K, times `label_scale`),
        "probabilities" or "logits".
      spec: the data set that was distilled.
      recipe: JSON-able; the method's name under "method" and all its settings.
      versions: JSON-able; library -> version, as it was at the distillation.
      data_fingerprint: hash of the real training data.
      citation: BibTeX of the method.
      evaluation: JSON-able; the protocol under which the set is meant to be used.
      label_scale: the factor on centred labels, above 0; 1.0 for every other kind.
    """

    synthetic: SyntheticSet
    normaliser: Normaliser
    label_kind: str
    spec: DataSpec
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data_fingerprint: str = ""
    citation: str = ""
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    label_scale: float = 1.0

    @property
    def ipc(self) -> int:
        """Stored images per class, the papers' budget.

        It is the recipe's "ipc" where there is one: a parameterization may show more images than it
        stores. Otherwise the images per class, rounded down.
        """
        shown = self.synthetic.images.shape[0] // self.spec.num_classes
        return self._noted("ipc", shown)

    @property
    def stored_bytes(self) -> int:
        """Bytes of what was learned, which the images may be decoded from."""
        return self._noted("stored_bytes", cost_bytes(self.synthetic))

    def _noted(self, name: str, otherwise: int) -> int:
        # What the recipe notes holds for the images that it made, not for a selection of them.
        same = self.recipe.get("shown_images") == self.synthetic.images.shape[0]
        value = self.recipe.get(name)
        return value if same and type(value) is int and value > 0 else otherwise


def cost_bytes(synthetic: SyntheticSet) -> int:
    """Bytes of the images, labels and learned rates; the budget that papers compare.

    Args:
      synthetic: arrays of any dtype.

    Returns:
      The sum of size times itemsize.

    Example:
      >>> images = np.zeros((2, 4, 4, 1), np.float32)
      >>> cost_bytes(SyntheticSet(images, np.zeros((2, 2), np.float32)))
      144
    """
    arrays = (array for array in synthetic if array is not None)
    return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in arrays)
