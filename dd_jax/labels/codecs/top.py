"""The k largest numbers of a label with their classes, and a rule for all other classes.

Sources: Shen and Xing, A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022
(marginal smoothing and marginal renormalisation); Xiao and He, Are Large-scale Soft Labels
Necessary for Large-scale Dataset Distillation?, NeurIPS 2024, and its journal version (MR-k, MS-k).

Differs from the official codes: classes are numbered in the smallest unsigned integers that hold K
(theirs are 16 bits wide), and a rest that rounding made negative is 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.labels.codecs.codec import Codec, Shapes, smallest

RESTS = ("uniform", "renormalised", "absent")


@dataclasses.dataclass(frozen=True)
class TopK(Codec):
    """k pairs (class, value in float16), largest first; equal values in the order of classes.

    With S the sum of the kept probabilities and v_k the least of them, the others get

      uniform       (1 - S) / (K - k) each, at least 0; the kept ones stay as they are
      renormalised  0; the kept ones are divided by S
      absent        of *logits*: -inf; a softmax at any temperature is then over the kept ones

    Error: a kept number is off by at most 2^-11 of itself + 2^-25 (renormalised: by 1 - S + 2^-10
    more); any other probability by at most v_k + 2^-10. FKD's hard label is k = 1, renormalised;
    its smoothed label is k = 1, uniform.

    Attributes:
      classes: K.
      kept: k, at most K.
      rest: as above.

    Raises:
      ConfigError: k above K or below 1, or an unknown rest.

    Example:
      >>> code = TopK(4, kept=1).encode(jnp.array([[0.0, 0.25, 0.5, 0.25]]), {})
      >>> code["indices"].tolist(), TopK(4, kept=1).decode(code).round(3).tolist()
      ([[2]], [[0.16..., 0.16..., 0.5, 0.16...]])
    """

    kept: int = 5
    rest: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        require_whole("kept", self.kept, example=5)
        if self.kept > self.classes:
            raise ConfigError(f"kept is {self.kept}, and labels have {self.classes} classes",
                              fix=f"pass kept={self.classes} or fewer, or store full labels")
        if self.rest not in RESTS:
            raise unknown("rest of a top-k label", self.rest, RESTS)

    @property
    def kind(self) -> str:
        """Probabilities, but logits where the others are absent."""
        return "logits" if self.rest == "absent" else "probabilities"

    @property
    def dense(self) -> bool:
        """Whether every class has a finite number."""
        return self.rest != "absent" or self.kept == self.classes

    def rows(self) -> Shapes:
        """"indices" and "values", both [k]."""
        return {"indices": jax.ShapeDtypeStruct((self.kept,), smallest(self.classes)),
                "values": jax.ShapeDtypeStruct((self.kept,), np.dtype("float16"))}

    def encode(
        self, labels: jax.Array, shared: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """Chooses in float32, then rounds."""
        values, indices = jax.lax.top_k(jnp.asarray(labels, jnp.float32), self.kept)
        return {"indices": indices.astype(smallest(self.classes)),
                "values": values.astype(jnp.float16)}

    def decode(self, arrays: Mapping[str, jax.Array]) -> jax.Array:
        """Puts the kept values in their places, the rest by the rule."""
        values = jnp.asarray(arrays["values"]).astype(jnp.float32)
        indices = jnp.asarray(arrays["indices"]).astype(jnp.int32)
        summed = jnp.sum(values, axis=-1, keepdims=True)
        if self.rest == "renormalised":
            values = values / summed
        others = {
            "uniform": jnp.maximum(0.0, 1.0 - summed) / max(1, self.classes - self.kept),
            "renormalised": jnp.zeros_like(summed),
            "absent": jnp.full_like(summed, -jnp.inf),
        }[self.rest]
        labels = jnp.broadcast_to(others, (*values.shape[:-1], self.classes))
        return jnp.put_along_axis(labels, indices, values, axis=-1, inplace=False)
