"""The record of a finished distilled set, and its size in the currency of the papers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.data.normalise import Normaliser
from dd_jax.types import DataSpec, SyntheticSet


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """What a set was decoded from, which may be smaller: the form in which its file holds it.

    Attributes:
      kind: of parameterization, a name in `dd_jax.store.stored.STORED_KINDS`.
      arguments: JSON-able; those that the parameterization was made with.
      params: name -> float32 array, its parameters.
    """

    kind: str
    arguments: Mapping[str, Any]
    params: Mapping[str, Any]


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
      stored: parameters that decode to exactly this synthetic set, which its file then holds in
        place of the images; None: the file holds the images. Of a selection it must be None.
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
    stored: Stored | None = None

    @property
    def ipc(self) -> int | float:
        """Stored images per class, the papers' budget; a fraction where classes share images.

        It is the recipe's "ipc" where there is one: a parameterization may show more images than it
        stores. Otherwise the images per class, rounded down.
        """
        value, shown = self._noted("ipc"), self.synthetic.images.shape[0]
        if type(value) is float and math.isfinite(value) and value > 0:
            return int(value) if value.is_integer() else value
        return value if _positive(value) else shown // self.spec.num_classes

    @property
    def stored_bytes(self) -> int:
        """Bytes of what was learned, which the images may be decoded from.

        Counted where that is here, in `stored`; else the recipe's "stored_bytes", if it has one.
        """
        if self.stored is not None:
            return cost_bytes(self.stored.params)
        value = self._noted("stored_bytes")
        return value if _positive(value) else cost_bytes(self.synthetic)

    def _noted(self, name: str) -> Any:
        # What the recipe notes holds for the images that it made, not for a selection of them.
        same = self.recipe.get("shown_images") == self.synthetic.images.shape[0]
        return self.recipe.get(name) if same else None


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def cost_bytes(synthetic: SyntheticSet | Mapping[str, Any]) -> int:
    """Bytes of the images, labels and learned rates; the budget that papers compare.

    Args:
      synthetic: arrays of any dtype, a set's or the named ones of a stored form.

    Returns:
      The sum of size times itemsize.

    Example:
      >>> images = np.zeros((2, 4, 4, 1), np.float32)
      >>> cost_bytes(SyntheticSet(images, np.zeros((2, 2), np.float32)))
      144
    """
    found = synthetic.values() if isinstance(synthetic, Mapping) else synthetic
    arrays = (array for array in found if array is not None)
    return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in arrays)
