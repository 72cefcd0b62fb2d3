"""A loop over groups of image pairs that keeps nothing of a group but its result.

The backward pass runs each group again (one more forward) and adds the cotangents of its images in
place, so memory does not grow with the number of pairs. See `docs/kernels.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dd_jax.backend import on_cpu

PyTree = Any

# Bytes of one tile [H, W, g] and of all that a group keeps between tiles. On a CPU about a dozen
# tiles live at once, in the second-level cache; on an accelerator one tile should have work for
# all of it.
CPU_BYTES = (128 * 1024, 24 * 1024**2)
ACCELERATOR_BYTES = (8 * 1024**2, 1024**3)
LANES = 16  # pairs side by side; the compiler is slow at numbers that 16 does not divide


def group_size(total: int, tile_bytes: int, state_bytes: int) -> int:
    """Pairs in a group: what the cache has room for, with little left over in the last group.

    Args:
      total: how many pairs there are.
      tile_bytes: of one tile of one pair.
      state_bytes: what one pair keeps between tiles.

    Example:
      >>> group_size(100, 28 * 28 * 4, 10_000) % LANES == 0
      True
    """
    limits = CPU_BYTES if on_cpu() else ACCELERATOR_BYTES
    room = min(limits[0] // tile_bytes, limits[1] // max(1, state_bytes))
    most = -(-min(max(room, LANES), total) // LANES) * LANES
    first = max(LANES, most // 2 // LANES * LANES)
    return min(range(first, most + 1, LANES), key=lambda g: -(-total // g) * (g + LANES))


def rectangle(columns: int) -> Callable:
    """Numbers the pairs of n1 x n2 images row by row: k -> (i, j)."""
    return lambda k: (k // columns, k % columns)


def triangle(n: int) -> Callable:
    """Numbers the n (n + 1) / 2 unordered pairs of n images by their distance: k -> (i, j).

    Pair k is (i, i + k // n mod n) with i = k mod n; the first n are the images with themselves.
    """
    return lambda k: (k % n, (k % n + k // n) % n)


def triangle_number(n: int) -> jax.Array:
    """[n, n] int32: which number `triangle` gives to each pair, the same for (i, j) and (j, i)."""
    i, j = jnp.arange(n)[:, None], jnp.arange(n)[None, :]
    low, high = jnp.minimum(i, j), jnp.maximum(i, j)
    step = high - low
    return jnp.where(step <= n // 2, step * n + low, (n - step) * n + high)


def _gather(sides, indices):
    """Rows of both sides with the pairs last: [n, ...] -> [..., g]."""
    return tuple(
        jax.tree.map(lambda a, i=i: jnp.moveaxis(a[i], 0, -1), side)
        for side, i in zip(sides, indices)
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _over_groups(fn, number, total, size, sides):
    def group(start):
        k = start + jnp.arange(size)
        i, j = number(jnp.minimum(k, total - 1))
        return fn(*_gather(sides, (i, j)), i == j)

    count = -(-total // size)
    if count == 1:
        return jax.tree.map(lambda v: v[:total], group(0))
    values = lax.map(group, jnp.arange(count) * size)
    return jax.tree.map(lambda v: v.reshape(-1)[:total], values)


def _forward(fn, number, total, size, sides):
    return _over_groups(fn, number, total, size, sides), sides


def _backward(fn, number, total, size, sides, bar):
    count = -(-total // size)
    split = lambda b: jnp.pad(b, (0, count * size - total)).reshape(count, size)  # noqa: E731
    bars = jax.tree.map(split, bar)

    def step(sides_bar, item):
        start, bar = item
        indices = number(jnp.minimum(start + jnp.arange(size), total - 1))
        same = indices[0] == indices[1]
        _, pull = jax.vjp(lambda *rows: fn(*rows, same), *_gather(sides, indices))
        rows_bar = pull(bar)
        added = tuple(
            jax.tree.map(lambda t, r, i=i: t.at[i].add(jnp.moveaxis(r, -1, 0)), side, rows)
            for side, rows, i in zip(sides_bar, rows_bar, indices)
        )
        return added, None

    zeros = jax.tree.map(jnp.zeros_like, sides)
    sides_bar, _ = lax.scan(step, zeros, (jnp.arange(count) * size, bars))
    return (sides_bar,)


_over_groups.defvjp(_forward, _backward)


def over_pairs(fn: Callable, number: Callable, total: int, sides: tuple, *, size: int) -> PyTree:
    """Evaluates `fn` on `total` numbered pairs, `size` at a time.

    Args:
      fn: (rows of side 1, rows of side 2, same [g] bool) -> pytree of [g], with the rows as
        pytrees of [..., g].
      number: int32 [g] -> two int32 [g], the pair of each number.
      total: how many pairs.
      sides: two pytrees of [n, ...]; differentiable.
      size: pairs in a group.

    Returns:
      Pytree of [total].
    """
    return _over_groups(fn, number, total, size, sides)


def over_images(fn: Callable, images, *, size: int):
    """Evaluates `fn` on groups of images.

    Args:
      fn: [..., g] -> pytree of [..., g].
      images: [n, ...]; differentiable, each group is run again in the backward pass.
      size: images in a group.

    Returns:
      Pytree of [n, ...].
    """
    n = images.shape[0]
    count = -(-n // size)
    groups = images[jnp.minimum(jnp.arange(count * size), n - 1).reshape(count, size)]
    fn = jax.checkpoint(fn)

    def group(rows):
        made = fn(jnp.moveaxis(rows, 0, -1))
        return jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), made)

    made = lax.map(group, groups)
    return jax.tree.map(lambda a: a.reshape(count * size, *a.shape[2:])[:n], made)
