"""What a codec of labels is: numbers [..., K] as arrays of fewer bytes, and back on the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import jax
import numpy as np

from dd_jax.errors import require_whole

KINDS = ("logits", "probabilities")
Shapes = dict[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Codec:
    """The base of all codecs, and what each has to say; frozen, so that it is static under jit.

    Attributes:
      classes: K.
      kind: what goes in and comes out, "logits" or "probabilities".
      dense: whether every class has a number of its own after decoding; where not, those that were
        left out are -inf, which a softmax takes and a squared error does not.
    """

    classes: int
    kind: ClassVar[str] = "logits"
    dense: ClassVar[bool] = True

    def __post_init__(self):
        require_whole("number of classes", self.classes, least=2, example=10)

    def rows(self) -> Shapes:
        """Name -> shape and dtype of what is kept of one label."""
        raise NotImplementedError

    def shared(self) -> Shapes:
        """Name -> shape and dtype of what is kept once for all labels of a store."""
        return {}

    def fit(self, blocks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """What all labels share, from labels [n, K] block by block."""
        return {}

    def encode(
        self, labels: jax.Array, shared: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Labels [..., K] float32 -> the arrays of `rows`, each with the leading axes."""
        raise NotImplementedError

    def decode(self, arrays: Mapping[str, jax.Array]) -> jax.Array:
        """The arrays of `rows` and `shared` -> labels [..., K] float32; can be traced."""
        raise NotImplementedError


def bytes_of(codec: Codec, labels: int) -> int:
    """Bytes that so many labels take, told before any of them is there.

    Args:
      codec: of the labels.
      labels: how many rows of K.

    Returns:
      Equal to the bytes of the encoded arrays.

    Raises:
      ConfigError: no number of labels.

    Example:
      >>> from dd_jax.labels.codecs.full import Full
      >>> bytes_of(Full(10), 300)
      6000
    """
    require_whole("number of labels", labels, least=0, example=100)
    return labels * size_of(codec.rows()) + size_of(codec.shared())


def size_of(shapes: Mapping[str, jax.ShapeDtypeStruct]) -> int:
    """Bytes of arrays of these shapes.

    Example:
      >>> size_of({"a": jax.ShapeDtypeStruct((3,), np.float16)})
      6
    """
    return sum(math.prod(s.shape) * np.dtype(s.dtype).itemsize for s in shapes.values())


def smallest(count: int) -> np.dtype:
    """The smallest unsigned integers that number `count` things from 0 on.

    Example:
      >>> smallest(256).name, smallest(257).name
      ('uint8', 'uint16')
    """
    return np.min_scalar_type(max(count - 1, 0))


def coded(labels: np.ndarray, codec: Codec) -> dict[str, np.ndarray]:
    """All labels at once as a codec keeps them, what they share included; on the host.

    Args:
      labels: [..., K] float.
      codec: of them.

    Returns:
      Name -> array, what `codec.decode` takes.

    Example:
      >>> from dd_jax.labels.codecs.full import Full
      >>> coded(np.ones((3, 2)), Full(2))["values"].dtype.name
      'float16'
    """
    labels = np.asarray(labels, np.float32)
    shared = codec.fit([labels.reshape(-1, codec.classes)])
    rows = jax.tree.map(np.asarray, codec.encode(labels, shared))
    return {**rows, **shared}
