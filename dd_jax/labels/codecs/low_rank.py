"""All labels of a store as a product of two thin matrices."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, require_whole
from dd_jax.labels.codecs.codec import Codec, Shapes


@dataclasses.dataclass(frozen=True)
class LowRank(Codec):
    """X ~ L R, with X [n, K] all logits of a store, L [n, r] and R [r, K] in float16.

    R are the r leading right singular vectors of X (from its Gram matrix, summed block by block in
    float64), rounded; each row of L is then the least-squares fit to its label by the rounded R.
    Error, by Eckart and Young and the two roundings, for labels of a size that float16 holds:

      |X - L R|_F <= sqrt(sum of squared singular values after the r-th)
                     + 2^-11 (1 + sqrt(r)) 1.01 |X|_F.

    Attributes:
      classes: K.
      rank: r, at most K.

    Raises:
      ConfigError: a rank above K or below 1.

    Example:
      >>> from dd_jax.labels.codecs.codec import coded
      >>> labels = np.outer([1.0, 2.0, 4.0], [1.0, -1.0])
      >>> arrays = coded(labels, LowRank(2, rank=1))
      >>> bool(np.abs(LowRank(2, rank=1).decode(arrays) - labels).max() < 0.01)
      True
    """

    rank: int = 8

    def __post_init__(self):
        super().__post_init__()
        require_whole("rank", self.rank, example=8)
        if self.rank > self.classes:
            raise ConfigError(f"rank is {self.rank}, and labels have {self.classes} classes",
                              fix=f"pass rank={self.classes} or less, or store full labels")

    def rows(self) -> Shapes:
        """"left" [r]."""
        return {"left": jax.ShapeDtypeStruct((self.rank,), np.dtype("float16"))}

    def shared(self) -> Shapes:
        """"right" [r, K]."""
        return {"right": jax.ShapeDtypeStruct((self.rank, self.classes), np.dtype("float16"))}

    def fit(self, blocks: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """R; the largest entry of each vector is positive, which fixes its sign."""
        gram = np.zeros((self.classes, self.classes))
        for block in blocks:
            block = np.asarray(block, np.float64)
            gram += block.T @ block
        vectors = np.linalg.eigh(gram)[1][:, ::-1].T[: self.rank]
        largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=1)[:, None], axis=1)
        return {"right": (vectors * np.where(largest < 0, -1.0, 1.0)).astype(np.float16)}

    def encode(
        self, labels: jax.Array, shared: Mapping[str, jax.Array]
    ) -> dict[str, jax.Array]:
        """L = X R^T (R R^T)^-1, the least-squares fit, rounded."""
        right = jnp.asarray(shared["right"], jnp.float32)
        inner = jnp.matmul(right, right.T, precision="highest")
        seen = jnp.matmul(jnp.asarray(labels, jnp.float32), right.T, precision="highest")
        return {"left": jnp.matmul(seen, jnp.linalg.inv(inner),
                                   precision="highest").astype(jnp.float16)}

    def decode(self, arrays: Mapping[str, jax.Array]) -> jax.Array:
        """The product."""
        left, right = (jnp.asarray(arrays[name], jnp.float32) for name in ("left", "right"))
        return jnp.matmul(left, right, precision="highest")
