"""One group of image pairs through a program: stages tile by tile, then the head.

Everything here has the pairs of the group as its last axis, g. The recurrences and the words are
explained in `docs/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.kernels.collectors import fold_pool, mean_collector, pool_collector
from dd_jax.kernels.layers import Layer
from dd_jax.kernels.plan import Program, Stage, grids
from dd_jax.kernels.relu import Scale, rectify, scale_of
from dd_jax.kernels.tiles import Fixed, Inputs, sum_over_offsets


class Pair(NamedTuple):
    """K and Theta of the same pairs; Theta is None where unwanted, or zero so far."""

    cov: jax.Array
    tangent: Any = None


@jax.custom_vjp
def box(array, seams):
    """Sum over 3x3 windows [H, W, ...] with zero padding; its own transpose.

    Args:
      array: [H, W, g].
      seams: see `places.Place`; sums do not reach across them.
    """
    array = jnp.pad(array, [(1, 1), (1, 1)] + [(0, 0)] * (array.ndim - 2))
    for axis in (0, 1):
        array = _sum3(array, seams[axis], axis)
    return array


def _sum3(array, seam, axis):
    n = array.shape[axis] - 2
    before, here, after = (jax.lax.slice_in_dim(array, i, i + n, axis=axis) for i in (0, 1, 2))
    if seam is not None:
        shape = [n if i == axis else 1 for i in range(array.ndim)]
        position = jax.lax.broadcasted_iota(jnp.int32, shape, axis)
        before = jnp.where(position == seam, 0, before)
        after = jnp.where(position == seam - 1, 0, after)
    return before + here + after


box.defvjp(lambda a, seams: (box(a, seams), seams), lambda seams, bar: (box(bar, seams), None))


def affine(layer: Layer, pair: Pair, *, ntk: bool, spread, mask=None) -> Pair:
    """K <- bias + weight * spread(K), Theta <- K + weight * spread(Theta), for any layout."""
    masked = (lambda a: a) if mask is None else (lambda a: jnp.where(mask, a, 0))
    cov = layer.bias + layer.weight * spread(pair.cov)
    if not ntk:
        return Pair(masked(cov))
    if pair.tangent is None:
        cov = masked(cov)
        return Pair(cov, cov)
    return Pair(masked(cov), masked(cov + layer.weight * spread(pair.tangent)))


def _tile(layers: tuple[Layer, ...], channels: int, ntk: bool):
    """The function of one tile: start from images or from stacked pairs, then the layers."""

    def tile(place, inputs: Inputs, fixed: Fixed) -> Pair:
        (image1, logs1), (image2, logs2) = inputs.here, inputs.there
        pair = inputs.stacked
        if pair is None:
            pair = Pair((image1 * image2).sum(2) / channels)
        exact = None if fixed.same is None else fixed.same & place.zero
        scales = iter(zip(map(Scale, fixed.here, logs1), map(Scale, fixed.there, logs2)))
        for layer in layers:
            if layer.op == "relu":
                pair = Pair(*rectify(*pair, *next(scales), exact))
            else:
                spread = lambda a: box(a, place.seams) / 9  # noqa: E731
                pair = affine(layer, pair, ntk=ntk, spread=spread, mask=place.mask)
        return pair

    return tile


def _inputs(images, stacked, scales1, scales2, same) -> tuple[Inputs, Fixed]:
    logs1, logs2 = ([s.log for s in scales] for scales in (scales1, scales2))
    roots1, roots2 = ([s.root for s in scales] for scales in (scales1, scales2))
    return Inputs((images[0], logs1), (images[1], logs2), stacked), Fixed(roots1, roots2, same)


def run_pairs(
    program: Program,
    images1,
    images2,
    scales1: Sequence,
    scales2: Sequence,
    *,
    ntk: bool,
    same=None,
) -> Pair:
    """K and Theta of g pairs of images.

    Args:
      program: the layers.
      images1: [H, W, C, g].
      images2: [H, W, C, g].
      scales1: one `Scale` per rectifier, [h, w, g] or, after the read-out, [g].
      scales2: the same of the second images.
      ntk: whether Theta is wanted.
      same: [g] bool, pairs of an image with itself; None where there are none.

    Returns:
      Pair of [g].
    """
    height, width, channels = images1.shape[:3]
    places = grids(program, (height, width))
    stacked, images, used = None, (images1, images2), 0
    for number, (stage, grid) in enumerate(zip(program.stages, places)):
        count = sum(layer.op == "relu" for layer in stage.layers)
        part = slice(used, used + count)
        arrays = _inputs(images, stacked, scales1[part], scales2[part], same)
        tile = _tile(stage.layers, channels, ntk)
        if stage.pooled:
            parts = sum_over_offsets(tile, pool_collector(grid), grid, *arrays)
            stacked = Pair(*(p and fold_pool(p, grid, places[number + 1]) for p in parts))
        else:
            positions = grid.y.size * grid.x.size
            if program.read_out == "global_average_pool":
                positions = positions**2
            pair = sum_over_offsets(tile, mean_collector(positions), grid, *arrays)
        images, used = (None, None), used + count
    for layer in program.head:
        if layer.op == "relu":
            pair = Pair(*rectify(*pair, scales1[used], scales2[used], same))
            used += 1
        else:
            pair = affine(layer, pair, ntk=ntk, spread=lambda a: a)
    return pair


def _stage_variances(stage: Stage, variance) -> tuple[list, jax.Array]:
    """The variances [h, w, g] at each rectifier of a stage, and those that leave it."""
    found = []
    for layer in stage.layers:
        if layer.op == "relu":
            found.append(variance)
            variance = variance / 2
        else:
            variance = layer.bias + layer.weight * box(variance, (None, None)) / 9
    return found, variance


def run_variances(program: Program, images) -> list:
    """The variance of every pre-activation that meets a rectifier.

    Args:
      program: the layers.
      images: [H, W, C, g].

    Returns:
      One array per rectifier: [h, w, g], or [g] after the read-out.
    """
    height, width, channels = images.shape[:3]
    same = jnp.ones(images.shape[3:], bool)
    places = grids(program, (height, width))
    found, stacked, source = [], None, images
    for number, (stage, grid) in enumerate(zip(program.stages, places)):
        if stacked is None:
            variance = (images * images).sum(2) / channels
        else:
            variance = stacked.cov[grid.y.zero, grid.x.zero]
        here, _ = _stage_variances(stage, variance)
        found += here
        last = not stage.pooled
        if last and not any(layer.op == "relu" for layer in program.head):
            return found
        scales = [scale_of(v) for v in here]
        arrays = _inputs((source, source), stacked, scales, scales, same)
        tile = _tile(stage.layers, channels, False)
        if last:
            count = grid.y.size * grid.x.size
            count = count**2 if program.read_out == "global_average_pool" else count
            total = sum_over_offsets(tile, mean_collector(count), grid, *arrays)
            variance = total.cov
            break
        parts = sum_over_offsets(tile, pool_collector(grid), grid, *arrays)
        stacked, source = Pair(fold_pool(parts.cov, grid, places[number + 1])), None
    for layer in program.head:
        if layer.op == "relu":
            found.append(variance)
            variance = variance / 2
        else:
            variance = layer.bias + layer.weight * variance
    return found
