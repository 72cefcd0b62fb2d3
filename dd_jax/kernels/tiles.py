"""A loop over offsets, one tile of positions at a time, with a derivative rule of its own.

`sum_over_offsets(tile, collect, ...)` is what a pooled kernel spends its time in. One tile is an
array [H, W, g]: all positions of one offset, for g pairs of images side by side, so that every
shift is along a slow axis and the working set fits a cache. The backward pass computes each tile
again instead of storing it, and adds cotangents in place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dd_jax.kernels.offsets import (
    Axis,
    inside,
    pooled_index,
    pooled_matrix,
    pooled_values,
    seam,
)

PyTree = Any
QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Inputs(NamedTuple):
    """What the tiles are made of; any part may be None.

    Attributes:
      here: arrays [H, W, ...] read at p, the same for every tile.
      there: arrays [H, W, ...] read at p'.
      stacked: arrays [ny, nx, H, W, ...] with one tile for each offset.
    """

    here: PyTree
    there: PyTree
    stacked: PyTree = None


class Fixed(NamedTuple):
    """What the tiles are made of and is not differentiated.

    Attributes:
      here: arrays [H, W, ...] read at p.
      there: arrays [H, W, ...] read at p'.
      same: [g] bool, pairs of an image with itself; None where there are none.
    """

    here: PyTree
    there: PyTree
    same: Any = None


class Place(NamedTuple):
    """Where a tile is: indices of its offset and what is special there.

    Attributes:
      y, x: indices into the offsets of the two axes.
      mask: bool [H, W, 1], whether the partner is in the image, or None.
      seams: for each axis the position that is no neighbour of the one before it, or None.
      zero: bool [], whether p' = p; a Python bool where there is only one tile.
    """

    y: jax.Array
    x: jax.Array
    mask: jax.Array | None
    seams: tuple[jax.Array | None, jax.Array | None]
    zero: Any


class Grid(NamedTuple):
    """The offsets of both axes."""

    y: Axis
    x: Axis

    @property
    def count(self) -> int:
        return self.y.count * self.x.count


def _outer(rows, columns):
    """[H, W, 1] from [H] and [W], either of which may be None."""
    rows = None if rows is None else rows[:, None, None]
    columns = None if columns is None else columns[None, :, None]
    if rows is None or columns is None:
        return rows if columns is None else columns
    return rows & columns


def _place(grid: Grid, k) -> Place:
    y = x = np.int32(0)
    if grid.count > 1:  # lax.div and lax.rem: no care for signs, so that index arithmetic fuses
        k = jnp.asarray(k, jnp.int32)
        y, x = (op(k, jnp.int32(grid.x.count)) for op in (lax.div, lax.rem))
    mask = _outer(inside(grid.y, y), inside(grid.x, x))
    zero = True if grid.count == 1 else (y == grid.y.zero) & (x == grid.x.zero)
    return Place(y, x, mask, (seam(grid.y, y), seam(grid.x, x)), zero)


def _extend(grid: Grid, array):
    """Lengthens an array of partners so that offset number i is the window that starts at i."""
    for number, axis in enumerate(grid):
        if axis.reach is None:
            head = lax.slice_in_dim(array, 0, axis.size - 1, axis=number)
            array = jnp.concatenate([array, head], number)
        else:
            pad = [(0, 0)] * array.ndim
            pad[number] = (axis.reach, axis.reach)
            array = jnp.pad(array, pad)
    return array


def _starts(place: Place, array):
    return tuple(jnp.asarray(i, jnp.int32) for i in (place.y, place.x) + (0,) * (array.ndim - 2))


def _window(grid: Grid, place: Place, array):
    return _slice(place, array, (grid.y.size, grid.x.size, *array.shape[2:]))


def _slice(place, array, size):
    return lax.dynamic_slice(array, _starts(place, array), size, allow_negative_indices=False)


def _update(place, array, part):
    starts = _starts(place, array)
    return lax.dynamic_update_slice(array, part, starts, allow_negative_indices=False)


def _add(place: Place, total, part):
    return _update(place, total, _slice(place, total, part.shape) + part)


def _take(place: Place, array):
    return _slice(place, array, (1, 1, *array.shape[2:]))[0, 0]


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
        mask = _outer(*(inside(a, i, end=a.size - 1) if a.size % 2 else None for a, i in where))
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
            parts.append(_add(at, part, quarter[None, None]))
        return tuple(parts)

    def spread(place, bars, shape):
        parts = [_take(slot(place, a, b), bar) for bar, (a, b) in zip(bars, QUARTERS)]
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
        if not np.array_equal(weights, np.eye(*weights.shape)):
            array = _recombine(array, weights, number)
        if mask is not None:
            shape = [1] * array.ndim
            shape[number], shape[number + 2] = mask.shape
            array = array * jnp.asarray(mask.reshape(shape), array.dtype)
    return array


def _recombine(array, weights: np.ndarray, axis: int):
    """Sums of a few slices for each row of 0/1 weights."""
    rows = []
    for row in weights:
        used = [lax.index_in_dim(array, int(i), axis, keepdims=False) for i in np.flatnonzero(row)]
        rows.append(sum(used))
    return jnp.stack(rows, axis)


def _tile_of(tile, grid, fixed: Fixed):
    """tile(place, inputs, fixed) at a place, as a function of the parts of `Inputs` there."""
    fixed_there = jax.tree.map(partial(_extend, grid), fixed.there)

    def at(place):
        there = jax.tree.map(partial(_window, grid, place), fixed_there)
        return lambda parts: tile(place, parts, fixed._replace(there=there))

    return at


def _parts(grid, place, inputs: Inputs, there) -> Inputs:
    far = jax.tree.map(partial(_window, grid, place), there)
    return Inputs(inputs.here, far, jax.tree.map(partial(_take, place), inputs.stacked))


def _loop(grid: Grid, step, start):
    return step(0, start) if grid.count == 1 else lax.fori_loop(0, grid.count, step, start)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sum_over_offsets(tile, collector: Collector, grid: Grid, inputs: Inputs, fixed: Fixed):
    there = jax.tree.map(partial(_extend, grid), inputs.there)
    tile_at = _tile_of(tile, grid, fixed)

    def one(k):
        place = _place(grid, k)
        return place, tile_at(place)(_parts(grid, place, inputs, there))

    def step(k, total):
        place, made = one(k)
        return jax.tree.map(lambda m, t: collector.add(place, t, m), made, total)

    shapes = jax.eval_shape(lambda: one(0)[1])
    return _loop(grid, step, jax.tree.map(lambda s: collector.start(s.shape, s.dtype), shapes))


def _forward(tile, collector, grid, inputs, fixed):
    return _sum_over_offsets(tile, collector, grid, inputs, fixed), (inputs, fixed)


def _backward(tile, collector, grid, saved, bars):
    inputs, fixed = saved
    extend = lambda tree: jax.tree.map(partial(_extend, grid), tree)  # noqa: E731
    there, contract = jax.vjp(extend, inputs.there)
    tile_at = _tile_of(tile, grid, fixed)

    def step(k, totals):
        place = _place(grid, k)
        made, pull = jax.vjp(tile_at(place), _parts(grid, place, inputs, there))
        tile_bars = jax.tree.map(lambda m, b: collector.spread(place, b, m.shape), made, bars)
        (parts,) = pull(tile_bars)
        return Inputs(
            jax.tree.map(jnp.add, totals.here, parts.here),
            jax.tree.map(partial(_add, place), totals.there, parts.there),
            jax.tree.map(
                lambda t, p: _update(place, t, p[None, None]), totals.stacked, parts.stacked
            ),
        )

    totals = jax.tree.map(jnp.zeros_like, Inputs(inputs.here, there, inputs.stacked))
    totals = _loop(grid, step, totals)
    return totals._replace(there=contract(totals.there)[0]), None


_sum_over_offsets.defvjp(_forward, _backward)


def sum_over_offsets(
    tile: Callable, collector: Collector, grid: Grid, inputs: Inputs, fixed: Fixed
) -> PyTree:
    """Collects `tile` over all offsets of `grid`.

    Args:
      tile: (place, inputs, fixed) -> pytree of [H, W, g] at one offset, where the parts of the two
        records are those of that offset, all [H, W, ...].
      collector: how tiles become the result.
      grid: the offsets.
      inputs: see `Inputs`; differentiable.
      fixed: see `Fixed`.

    Returns:
      What the collector makes of every leaf of a tile.
    """
    return _sum_over_offsets(tile, collector, grid, inputs, fixed)
