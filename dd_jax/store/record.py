"""The record of a finished distilled set, and what it costs in the currency of the papers."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dd_jax.data.normalise import Normaliser, normalise
from dd_jax.synthetic.labels import targets
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


@dataclasses.dataclass(frozen=True)
class LabelStore:
    """A file beside a set's file, with labels of its images for each epoch of a training.

    `dd_jax.store.write_label_store` makes one, `dd_jax.store.read_targets` reads it.

    Attributes:
      name: of the file, without any folder: "NAME.labels.safetensors".
      sha256: of the file's header, which holds the hashes of all its labels.
      dtype: "float16" or "float32", of a stored number.
      shape: (E, M, K).
      kind: what the labels are, "probabilities" or "logits".
      path: where the file was found; None where nobody has looked. Not part of the set's file.
    """

    name: str
    sha256: str
    dtype: str
    shape: tuple[int, int, int]
    kind: str = "probabilities"
    path: pathlib.Path | None = dataclasses.field(default=None, compare=False)

    @property
    def bytes(self) -> int:
        """Bytes of the labels in the file."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Cost(NamedTuple):
    """Bytes that a set takes, by part; a part that the files do not hold costs nothing.

    Attributes:
      images: in the dtype in which they are stored.
      labels: of the set's own file; class numbers take 4 bytes an image.
      label_store: of the file beside it.
      parameters: what the images are decoded from, and learned rates, temperature and weights.
    """

    images: int = 0
    labels: int = 0
    label_store: int = 0
    parameters: int = 0

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self)


@dataclasses.dataclass(frozen=True, eq=False)
class DistilledSet:
    """A synthetic set with everything that is needed to use it, repeat it and cite it.

    Images may be of classes in any order and number. `trainable` gives what a network trains on.

    Attributes:
      synthetic: images [M, H, W, C] float32 in model space, or uint8 pixels 0..255 that have yet
        to go through the normaliser; labels [M] int32 of kind "classes", or [M, K] float32 of
        another kind; learned rate(s) or None; weights [M] float32 or None.
      normaliser: what turns images in [0, 1] into model space, and back.
      label_kind: "classes", "one_hot", "centred" (one-hot minus 1/K, times `label_scale`),
        "probabilities", "logits" or "representations".
      spec: the data set that was distilled.
      recipe: JSON-able; the method's name under "method" and all its settings.
      versions: JSON-able; library -> version, as it was at the distillation.
      data_fingerprint: hash of the real training data.
      citation: BibTeX of the method.
      evaluation: JSON-able; the protocol under which the set is meant to be used.
      label_scale: the factor on centred labels, above 0; 1.0 for every other kind.
      stored: parameters that decode to exactly this synthetic set, which its file then holds in
        place of the images; None: the file holds the images. Of a selection it must be None.
      label_store: labels of each epoch in a file beside the set's; None where there are none.
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
    label_store: LabelStore | None = None

    def trainable(self) -> SyntheticSet:
        """What a network trains on, however the set is stored.

        Returns:
          Images [M, H, W, C] float32 in model space, labels [M, K] float32 (one-hot where the set
          has class numbers), and the set's rates, temperature and weights.

        Example:
          >>> from dd_jax.data.normalise import identity
          >>> whole = SyntheticSet(np.full((1, 1, 1, 1), 255, np.uint8), np.array([1], np.int32))
          >>> spec = DataSpec("toy", (1, 1, 1), 2, ("a", "b"))
          >>> seen = DistilledSet(whole, identity(spec.shape), "classes", spec).trainable()
          >>> seen.images.ravel().tolist(), seen.labels.tolist()
          ([1.0], [[0.0, 1.0]])
        """
        images, labels = jnp.asarray(self.synthetic.images), jnp.asarray(self.synthetic.labels)
        if images.dtype == jnp.uint8:
            images = normalise(self.normaliser, images)
        if self.label_kind == "classes":
            labels = targets(labels, self.spec.num_classes, kind="classes")
        return self.synthetic._replace(images=images, labels=labels)

    @property
    def hard_labels(self) -> np.ndarray | None:
        """[M] int32, the class of each image or the largest of its labels; None where the labels
        are representations, which name no class."""
        labels = np.asarray(self.synthetic.labels)
        if self.label_kind == "representations":
            return None
        return (labels if self.label_kind == "classes" else labels.argmax(axis=1)).astype(np.int32)

    @property
    def ipc(self) -> int | float:
        """Stored images per class, the papers' budget.

        It is the recipe's "ipc" where there is one: a parameterization may show more images than it
        stores. Otherwise M / K, a fraction where that is not whole: classes are of unequal size, or
        share images.
        """
        value, shown = self._noted("ipc"), self.synthetic.images.shape[0]
        if not _positive(value):
            noted = type(value) is float and math.isfinite(value) and value > 0
            value = value if noted else shown / self.spec.num_classes
        return int(value) if float(value).is_integer() else value

    @property
    def stored_bytes(self) -> int:
        """Bytes of what was learned, which the images may be decoded from, and of the label store.

        Counted where that is here, in `stored`; else the recipe's "stored_bytes", if it has one.
        """
        cost, value = self.cost_bytes, self._noted("stored_bytes")
        if self.stored is None and _positive(value):
            return value + cost.label_store
        return cost.total

    @property
    def cost_bytes(self) -> Cost:
        """Bytes by part, equal to those of the arrays that the set's files hold.

        Only the normaliser is not counted: it belongs to the real data.
        """
        beside = 0 if self.label_store is None else self.label_store.bytes
        if self.stored is not None:
            return Cost(0, 0, beside, array_bytes(self.stored.params.values()))
        images, labels, *others = self.synthetic
        return Cost(array_bytes([images]), array_bytes([labels]), beside, array_bytes(others))

    def _noted(self, name: str) -> Any:
        # What the recipe notes holds for the images that it made, not for a selection of them.
        same = self.recipe.get("shown_images") == self.synthetic.images.shape[0]
        return self.recipe.get(name) if same else None


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


def array_bytes(arrays: Iterable[Any]) -> int:
    """Bytes of arrays of any dtype; None counts nothing.

    Example:
      >>> array_bytes([np.zeros((2, 3), np.float32), None])
      24
    """
    return sum(math.prod(a.shape) * np.dtype(a.dtype).itemsize for a in arrays if a is not None)
