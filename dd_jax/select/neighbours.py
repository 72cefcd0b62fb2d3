"""The nearest neighbours of points, block by block: never an array of all pairs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import own_dtypes
from dd_jax.errors import ConfigError, require_whole
from dd_jax.select.memory import NUMBER, Bytes, Phase, Sizes

_MOST_NUMBERS = 2**24  # distances of a block of points to all others


def block_of(among: int) -> int:
    """Points whose distances to so many others are computed together.

    Example:
      >>> block_of(60_000)
      256
    """
    return max(1, _MOST_NUMBERS // _padded(among))


def _padded(size: int) -> int:
    return 1 << (size - 1).bit_length()  # classes of many sizes share a few programs


def neighbours_phase(among: Callable[[Sizes], int], width: Callable[[Sizes], int]) -> Phase:
    """What `nearest` holds on the device.

    Args:
      among: sizes -> m, points among which it looks.
      width: sizes -> P.
    """
    def arrays(sizes: Sizes) -> Bytes:
        return {"points": 2 * NUMBER * _padded(among(sizes)) * width(sizes)}

    def row(sizes: Sizes) -> int:  # distances, and as they are compared
        return NUMBER * (2 * _padded(among(sizes)) + 2 * width(sizes))

    return Phase(arrays, row, lambda sizes: min(sizes.images, block_of(among(sizes))))


@own_dtypes()
def nearest(
    points: np.ndarray, among: np.ndarray, count: int, *, own: np.ndarray | None = None,
    block: int | None = None,
) -> np.ndarray:
    """Places of the nearest neighbours of each point, by Euclidean distance, the nearest first.

      |a - b|^2 - |a|^2 = |b|^2 - 2 a.b, of points less the mean of `among`

    Args:
      points: [n, P] float32 on the host.
      among: [m, P] float32 on the host, where neighbours are looked for.
      count: k, of those that a point may have.
      own: [n], the place of each point in `among`, which is no neighbour of itself; -1 for a point
        that is not there. None: none of them is.
      block: points that go to the device together; None: so many that 2^24 distances are.

    Returns:
      [n, k] int32, places in `among`; of equally near ones the first.

    Raises:
      ConfigError: more neighbours than there are.

    Example:
      >>> line = np.float32([[0], [1], [3]])
      >>> nearest(line, line, 1, own=np.arange(3)).tolist()
      [[1], [0], [1]]
    """
    require_whole("neighbours", count, example=10)
    own = np.full(len(points), -1) if own is None else np.asarray(own)
    most = len(among) - bool((own >= 0).any())
    if count > most:
        raise ConfigError(f"neighbours is {count}, and a point has {most}",
                          fix="ask for fewer, or give more points")
    mean = np.mean(among, axis=0, dtype=np.float64).astype(np.float32)
    size = _padded(len(among))
    held = jnp.asarray(among - mean)
    held = jnp.concatenate([held, jnp.zeros((size - len(among), held.shape[1]))])
    block = min(len(points), block or block_of(len(among)))
    found = []
    for start in range(0, len(points), block):
        rows = np.minimum(np.arange(start, start + block), len(points) - 1)
        found.append(np.asarray(_nearest(points[rows] - mean, own[rows].astype(np.int32), held,
                                         len(among), count)))
    return np.concatenate(found)[: len(points)]


@functools.partial(jax.jit, static_argnames="count")
def _nearest(points, own, among, size, count):
    far = jnp.sum(among**2, axis=1) - 2 * jnp.matmul(points, among.T, precision="highest")
    place = jnp.arange(len(among))
    may = (place < size) & (place != own[:, None])
    return jax.lax.top_k(jnp.where(may, -far, -jnp.inf), count)[1].astype(jnp.int32)
