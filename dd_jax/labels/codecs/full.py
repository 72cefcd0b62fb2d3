"""Every number of a label, in half or in single precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import unknown
from dd_jax.labels.codecs.codec import KINDS, Codec, Shapes

DTYPES = ("float16", "float32")


@dataclasses.dataclass(frozen=True)
class Full(Codec):
    """K numbers as they are, rounded to `dtype`.

    Half precision rounds to nearest: |x' - x| <= 2^-11 |x| + 2^-25 for |x| <= 65504.

    Attributes:
      classes: K.
      kind: "logits" or "probabilities".
      dtype: "float16" or "float32".

    Raises:
      ConfigError: another kind or dtype.

    Example:
      >>> code = Full(2).encode(jnp.array([[0.1, 2.0]]), {})
      >>> Full(2).decode(code).tolist()
      [[0.0999755859375, 2.0]]
    """

    kind: str = "logits"
    dtype: str = "float16"

    def __post_init__(self):
        super().__post_init__()
        for name, value, known in (("kind of stored labels", self.kind, KINDS),
                                   ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise unknown(name, value, known)

    def rows(self) -> Shapes:
        """One array, "values" [K]."""
        return {"values": jax.ShapeDtypeStruct((self.classes,), np.dtype(self.dtype))}

    def encode(
        self, labels: jax.Array, shared: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Rounds."""
        return {"values": jnp.asarray(labels).astype(self.dtype)}

    def decode(self, arrays: Mapping[str, jax.Array]) -> jax.Array:
        """Back to float32."""
        return jnp.asarray(arrays["values"]).astype(jnp.float32)
