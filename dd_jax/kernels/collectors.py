"""What becomes of tiles: a mean over all of them, or a 2x2 average pool.

The words are explained in `docs/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from dd_jax.kernels.offsets import inside, pooled_index, pooled_matrix, pooled_values
from dd_jax.kernels.places import Grid, add_at, outer, take

QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Collector(NamedTuple):
    """A linear map from tiles to a result, and its transpose.

    Attributes:
      start: (tile) -> zeros of the result.
      add: (place, result, tile) -> result.
      spread: (place, cotangent of the result, tile shape) -> cotangent of the tile.
    """

    start: Callable
    add: Callable
    spread: Callable


def mean_collector(positions: float) -> Collector:
    """Sum over positions and offsets, over `positions`: tiles [H, W, g] -> [g]."""

    def add(place, total, tile):
        # A product with ones: a plain sum would be one slow loop with all of the tile inside.
        rows = tile.reshape(-1, tile.shape[-1])
        ones = jnp.full(rows.shape[0], 1 / positions, rows.dtype)
        return total + jnp.matmul(ones, rows, precision=lax.Precision.HIGHEST)

    return Collector(
        start=lambda shape, dtype: jnp.zeros(shape[2:], dtype),
        add=add,
        spread=lambda place, bar, shape: jnp.broadcast_to(bar / positions, shape),
    )


def pool_collector(source: Grid) -> Collector:
    """2x2 sums with stride 2: tiles [H, W, g] -> four arrays [ny', nx', H//2, W//2, g].

    The four parts are the even and odd rows and columns, whose sum is wanted: with an array of
    its own each part is updated in place. `fold_pool` adds them.
    """
    height, width = source.y.size // 2, source.x.size // 2
    # An odd last position is dropped: where it is p the slices below leave it out, as p' it is
    # masked here.

    def keep_partners(place, tile):
        where = zip(source, (place.y, place.x))
        mask = outer(*(inside(a, i, end=a.size - 1) if a.size % 2 else None for a, i in where))
        return tile if mask is None else jnp.where(mask, tile, 0)

    def slot(place, a, b):
        return place._replace(
            y=pooled_index(source.y, place.y, a), x=pooled_index(source.x, place.x, b)
        )

    def start(shape, dtype):
        counts = tuple(len(pooled_values(axis)) for axis in source)
        return (jnp.zeros((*counts, height, width, *shape[2:]), dtype),) * 4

    def add(place, total, tile):
        tile, parts = keep_partners(place, tile), []
        for part, (a, b) in zip(total, QUARTERS):
            at = slot(place, a, b)
            quarter = tile[a : 2 * height : 2, b : 2 * width : 2]
            parts.append(add_at(at, part, quarter[None, None]))
        return tuple(parts)

    def spread(place, bars, shape):
        parts = [take(slot(place, a, b), bar) for bar, (a, b) in zip(bars, QUARTERS)]
        rows = [jnp.stack(parts[2 * a : 2 * a + 2], 2) for a in (0, 1)]
        tile = jnp.stack(rows, 1).reshape(2 * height, 2 * width, *shape[2:])
        drop = [(0, n - m) for n, m in zip(shape, tile.shape)]
        return keep_partners(place, jnp.pad(tile, drop) if any(n for _, n in drop) else tile)

    return Collector(start, add, spread)


def fold_pool(parts, source: Grid, target: Grid):
    """The mean over 2x2 windows of both positions, at the offsets of `target`."""
    array = sum(parts) / 16
    for number, (a, b) in enumerate(zip(source, target)):
        weights, mask = pooled_matrix(a, b)
        array = _recombine(array, weights, number)
        if mask is not None:
            shape = [1] * array.ndim
            shape[number], shape[number + 2] = mask.shape
            array = array * jnp.asarray(mask.reshape(shape), array.dtype)
    return array


def _recombine(array, weights: np.ndarray, axis: int):
    """Sums of a few slices for each row of 0/1 weights; one slice where the rows only shift."""
    start = int(np.argmax(weights[0]))
    if np.array_equal(weights, np.eye(*weights.shape, k=start)):
        return lax.slice_in_dim(array, start, start + len(weights), axis=axis)
    rows = []
    for row in weights:
        used = [lax.index_in_dim(array, int(i), axis, keepdims=False) for i in np.flatnonzero(row)]
        rows.append(sum(used))
    return jnp.stack(rows, axis)
