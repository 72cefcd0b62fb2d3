"""Where a tile is: one offset of a grid of offsets, and the arrays that belong to it.

The words are explained in `docs/kernels.md`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dd_jax.kernels.offsets import Axis, inside, seam


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
        """How many offsets there are."""
        return self.y.count * self.x.count


def outer(rows, columns):
    """[H, W, 1] from [H] and [W], either of which may be None."""
    rows = None if rows is None else rows[:, None, None]
    columns = None if columns is None else columns[None, :, None]
    if rows is None or columns is None:
        return rows if columns is None else columns
    return rows & columns


def place_of(grid: Grid, k) -> Place:
    """The place of offset number k, counted row by row."""
    y = x = np.int32(0)
    if grid.count > 1:  # lax.div and lax.rem: no care for signs, so that index arithmetic fuses
        k = jnp.asarray(k, jnp.int32)
        y, x = (op(k, jnp.int32(grid.x.count)) for op in (lax.div, lax.rem))
    mask = outer(inside(grid.y, y), inside(grid.x, x))
    zero = True if grid.count == 1 else (y == grid.y.zero) & (x == grid.x.zero)
    return Place(y, x, mask, (seam(grid.y, y), seam(grid.x, x)), zero)


def extend(grid: Grid, array):
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


def window(grid: Grid, place: Place, array):
    """The tile [H, W, ...] of an extended array."""
    return cut(place, array, (grid.y.size, grid.x.size, *array.shape[2:]))


def cut(place, array, size):
    """A block of `array` that starts at the indices of `place`."""
    return lax.dynamic_slice(array, _starts(place, array), size, allow_negative_indices=False)


def update(place, array, part):
    """`array` with a block replaced, in place inside of a loop."""
    starts = _starts(place, array)
    return lax.dynamic_update_slice(array, part, starts, allow_negative_indices=False)


def add_at(place: Place, total, part):
    """`total` with a block added, in place inside of a loop."""
    return update(place, total, cut(place, total, part.shape) + part)


def take(place: Place, array):
    """The tile of an array [ny, nx, H, W, ...]."""
    return cut(place, array, (1, 1, *array.shape[2:]))[0, 0]
