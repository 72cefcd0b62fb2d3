"""A loop over offsets, one tile of positions at a time, with a derivative rule of its own.

`sum_over_offsets(tile, collect, ...)` is what a pooled kernel spends its time in. One tile is an
array [H, W, g]: all positions of one offset, for g pairs of images side by side, so that every
shift is along a slow axis and the working set fits a cache. The backward pass computes each tile
again instead of storing it, and adds cotangents in place. The words are explained in
`docs/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dd_jax.kernels.collectors import Collector
from dd_jax.kernels.places import Grid, add_at, extend, place_of, take, update, window

PyTree = Any


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


def _tile_of(tile, grid, fixed: Fixed):
    """tile(place, inputs, fixed) at a place, as a function of the parts of `Inputs` there."""
    fixed_there = jax.tree.map(partial(extend, grid), fixed.there)

    def at(place):
        there = jax.tree.map(partial(window, grid, place), fixed_there)
        return lambda parts: tile(place, parts, fixed._replace(there=there))

    return at


def _parts(grid, place, inputs: Inputs, there) -> Inputs:
    far = jax.tree.map(partial(window, grid, place), there)
    return Inputs(inputs.here, far, jax.tree.map(partial(take, place), inputs.stacked))


def _loop(grid: Grid, step, start):
    return step(0, start) if grid.count == 1 else lax.fori_loop(0, grid.count, step, start)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _sum_over_offsets(tile, collector: Collector, grid: Grid, inputs: Inputs, fixed: Fixed):
    there = jax.tree.map(partial(extend, grid), inputs.there)
    tile_at = _tile_of(tile, grid, fixed)

    def one(k):
        place = place_of(grid, k)
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
    extend_all = lambda tree: jax.tree.map(partial(extend, grid), tree)  # noqa: E731
    there, contract = jax.vjp(extend_all, inputs.there)
    tile_at = _tile_of(tile, grid, fixed)

    def step(k, totals):
        place = place_of(grid, k)
        made, pull = jax.vjp(tile_at(place), _parts(grid, place, inputs, there))
        tile_bars = jax.tree.map(lambda m, b: collector.spread(place, b, m.shape), made, bars)
        (parts,) = pull(tile_bars)
        return Inputs(
            jax.tree.map(jnp.add, totals.here, parts.here),
            jax.tree.map(partial(add_at, place), totals.there, parts.there),
            jax.tree.map(
                lambda t, p: update(place, t, p[None, None]), totals.stacked, parts.stacked
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
