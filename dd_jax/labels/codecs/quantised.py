"""Logits on an even grid of 2^n levels, n bits each, over the range of a label or of a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, unknown
from dd_jax.labels.codecs.codec import Codec, Shapes
from dd_jax.labels.codecs.packing import pack, packed_bytes, unpack

SPANS = ("row", "store")


@dataclasses.dataclass(frozen=True)
class Quantised(Codec):
    """x' = low + q (high - low) / (2^n - 1), with q the nearest of 0..2^n - 1 in n packed bits.

    The range is that of the label, its ends in float16 (4 bytes a label), or that of all labels of
    the store, in float32 (8 bytes a store). Error: at most half a level, (high - low) /
    (2 (2^n - 1)), and by the row 2^-11 max|x| more, by which its ends are rounded.

    Attributes:
      classes: K.
      bits: n, 2..8.
      span: "row" or "store".

    Raises:
      ConfigError: another number of bits, or an unknown span.

    Example:
      >>> code = Quantised(3, bits=2).encode(jnp.array([[0.0, 1.1, 3.0]]), {})
      >>> code["codes"].tolist(), Quantised(3, bits=2).decode(code).tolist()
      ([[52]], [[0.0, 1.0, 3.0]])
    """

    bits: int = 4
    span: str = "row"

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.bits, bool) or self.bits not in range(2, 9):
            raise ConfigError(f"bits is {self.bits!r}, expected 2..8", fix="pass bits=4")
        if self.span not in SPANS:
            raise unknown("span of quantised labels", self.span, SPANS)

    def rows(self) -> Shapes:
        """"codes" [bytes], and by the row "low" and "high" []."""
        codes = jax.ShapeDtypeStruct((packed_bytes(self.classes, self.bits),), np.dtype("uint8"))
        return {"codes": codes, **(self._ends("float16") if self.span == "row" else {})}

    def shared(self) -> Shapes:
        """By the store, "low" and "high" []."""
        return self._ends("float32") if self.span == "store" else {}

    def fit(self, blocks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """The least and the largest number of all labels, where the range is the store's."""
        if self.span == "row":
            return {}
        ends = np.array([(block.min(), block.max()) for block in blocks], np.float32)
        return {"low": ends[:, 0].min(), "high": ends[:, 1].max()}

    def encode(
        self, labels: jax.Array, shared: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """The nearest level between the ends as they are kept."""
        labels = jnp.asarray(labels, jnp.float32)
        ends = shared if self.span == "store" else {
            "low": jnp.min(labels, axis=-1).astype(jnp.float16),
            "high": jnp.max(labels, axis=-1).astype(jnp.float16)}
        low, level = self._levels(ends)
        numbers = jnp.round((labels - low) / jnp.where(level > 0, level, 1.0))
        codes = pack(jnp.clip(numbers, 0, 2**self.bits - 1), self.bits)
        return {"codes": codes, **({} if self.span == "store" else ends)}

    def decode(self, arrays: Mapping[str, jax.Array]) -> jax.Array:
        """Levels from their numbers."""
        low, level = self._levels(arrays)
        return low + level * unpack(jnp.asarray(arrays["codes"]), self.classes, self.bits)

    def _levels(self, ends: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = (jnp.asarray(ends[name], jnp.float32)[..., None] for name in ("low", "high"))
        return low, (high - low) / (2**self.bits - 1)

    def _ends(self, dtype: str) -> Shapes:
        return {name: jax.ShapeDtypeStruct((), np.dtype(dtype)) for name in ("low", "high")}
