"""Which pairs of positions a kernel needs, along one image axis: position p and partner p + o.

A convolution with a rectifier couples (p, p') only to (p + 1, p' + 1) and so on: the offset
o = p' - p stays. So pairs are kept offset by offset, and two sets of offsets suffice:
  band    -D..D, partners outside the image masked. A flatten read-out needs D = 0 at its end and
          D -> 2 D + 1 before each 2x2 pool: exact, and many times fewer pairs;
  cyclic  0..n-1 with partner (p + o) mod n: all n^2 pairs and no waste, for global average pools;
          the ends of the image are no neighbours, which `seam` says.
A 2x2 pool joins p = 2 P + a with p' = 2 P' + b, a, b in {0, 1}: offset o of an even p (a = 0) goes
to floor(o / 2), of an odd p (a = 1) to ceil(o / 2). See `docs/kernels.md` for the layouts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jax import lax


class Axis(NamedTuple):
    """One image axis and its offsets.

    Attributes:
      size: positions n.
      reach: D of a band; None for the cyclic set.
    """

    size: int
    reach: int | None

    @property
    def count(self) -> int:
        """How many offsets there are."""
        return self.size if self.reach is None else 2 * self.reach + 1

    @property
    def zero(self) -> int:
        """The index of offset 0."""
        return self.reach or 0


def band(size: int, reach: int) -> Axis:
    """Offsets -reach..reach, never more than there are in the image."""
    return Axis(size, min(reach, size - 1))


def every(size: int) -> Axis:
    """All pairs: cyclic, or a full band where a pool has to drop an odd last position."""
    return Axis(size, None if size % 2 == 0 or size == 1 else size - 1)


def cyclic(size: int) -> Axis:
    """All pairs, where no pool follows."""
    return Axis(size, None)


def inside(axis: Axis, index, *, end: int | None = None):
    """[size] bool, whether the partners at offset number `index` are in the image.

    None where they always are. Written with comparisons of a counter, which compilers fuse.

    Args:
      axis: the offsets.
      index: int [], or a column of them.
      end: the first position that counts as outside; the size of the image where None.
    """
    if not axis.reach:
        return None
    partner = lax.iota(np.int32, axis.size) + (index - axis.reach)
    return (partner >= 0) & (partner < (end or axis.size))


def seam(axis: Axis, index):
    """The position whose pair is no neighbour of the one before, for offset number `index`.

    None for a band, where masked partners are zero and need no further care.
    """
    return None if axis.reach is not None else axis.size - index


def pooled_values(source: Axis) -> np.ndarray:
    """Offsets after a 2x2 pool in the order of `pooled_index`; cyclic ones are to be folded."""
    return np.arange(pooled_index(source, source.count - 1, 1) + 1) + _first(source) // 2


def pooled_index(source: Axis, index, odd: int):
    """Which of `pooled_values` the even (odd=0) or odd positions of offset number `index` feed."""
    return (index + (_first(source) % 2 + odd)) >> 1


def _first(axis: Axis) -> int:
    return 0 if axis.reach is None else -axis.reach


def pooled_matrix(source: Axis, target: Axis) -> tuple[np.ndarray, np.ndarray | None]:
    """How the offsets of `target` are made of `pooled_values(source)`.

    Returns:
      A pair of [target.count, values] 0/1 weights and [target.count, target.size] bool where cyclic
      offsets have to be cut to a band, else None.
    """
    values = pooled_values(source)
    if target.reach is None:
        wanted, values = np.arange(target.size), values % target.size
    else:
        wanted = np.arange(-target.reach, target.reach + 1)
    cut = source.reach is None and target.reach is not None
    if cut:
        wanted, values = wanted % target.size, values % target.size
    weights = (wanted[:, None] == values[None, :]).astype(np.float64)
    mask = None
    if cut:
        partner = np.arange(target.size) + np.arange(-target.reach, target.reach + 1)[:, None]
        mask = (partner >= 0) & (partner < target.size)
    return weights, mask
