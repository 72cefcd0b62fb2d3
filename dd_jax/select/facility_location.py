"""Facility location by lazy greedy: every image shall be like one of the chosen.

  F(S) = sum_j max_{x in S} s(j, x),   s(a, b) = (1 + cos(a, b)) / 2
  gain of x = sum_j max(0, s(j, x) - covered_j)

F is submodular: a gain that was computed earlier is an upper bound of today's. So a step looks
again at a block of the images with the largest bounds only, and takes the best of them once its
gain is at least every other bound. The choice is that of plain greedy, with the memory of block x n
numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.select.greedy_choices import directions
from dd_jax.select.rules import unweighted
from dd_jax.select.selector import Chosen
from dd_jax.types import PyTree

_MOST_NUMBERS = 2**24  # of a block's similarities


def block_of(size: int) -> int:
    """Candidates whose gains are computed together: 16 to 256, by the memory that they take.

    Example:
      >>> block_of(1000), block_of(60_000), block_of(10**7), block_of(3)
      (256, 256, 16, 3)
    """
    return min(size, max(16, min(256, _MOST_NUMBERS // size)))


def facility_location(
    points: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None, *,
    block: int | None = None,
) -> Chosen:
    """Greedy choice of images of which every image of the group has a similar one.

    Args:
      points: [n, P] features, of which only the direction counts.
      valid, count, key: as for `Selector.choose`.
      block: candidates at a time, 4 n bytes each; None: see `block_of`.

    Returns:
      `Chosen`, weights 1.

    Example:
      >>> points = jnp.array([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [-1.0, 0.0]])
      >>> facility_location(points, jnp.ones(4, bool), 2).rows.tolist()
      [1, 3]

    Source: Mirzasoleiman, Bilmes and Leskovec, Coresets for Data-efficient Training, ICML 2020, for
    its use; Minoux, Accelerated greedy algorithms, 1978, for the bounds.
    """
    block = block_of(len(points)) if block is None else min(block, len(points))
    return unweighted(_covered(points, valid, count, block=block), count)


@functools.partial(jax.jit, static_argnames="block")
def _covered(points, valid, count, *, block):
    points = directions(points, valid)

    def likeness(some):
        return jnp.where(valid, (1 + jnp.matmul(some, points.T, precision="highest")) / 2, 0)

    def gains(covered, places):
        return jnp.sum(jnp.maximum(likeness(points[places]) - covered, 0), axis=1)

    def update(covered, place):
        return jnp.maximum(covered, likeness(points[place][None])[0])

    return lazily(gains, update, jnp.zeros(len(points)), valid, count, block=block)[0]


def in_blocks(fn: Callable[[jax.Array], jax.Array], size: int, block: int) -> jax.Array:
    """`fn` of the places 0 to size - 1, of which it gets `block` at a time: [size].

    Example:
      >>> in_blocks(lambda places: 2 * places, 3, 2).tolist()
      [0, 2, 4]
    """
    blocks = jnp.minimum(jnp.arange(-(-size // block) * block), size - 1)
    return jax.lax.map(fn, blocks.reshape(-1, block)).reshape(-1)[:size]


def lazily(
    gains: Callable[[PyTree, jax.Array], jax.Array],
    update: Callable[[PyTree, jax.Array], PyTree],
    state: PyTree,
    valid: jax.Array,
    count: int | jax.Array,
    *,
    block: int,
) -> tuple[jax.Array, PyTree]:
    """`greedy_choices.greedy` where gains never grow: those of a block of places at a time.

    Args:
      gains: (state, places [b]) -> [b], none above what it was in an earlier state.
      update: (state, place) -> state after this image was chosen.
      state: before the first choice.
      valid: [n] bool, what may be chosen.
      count: may be traced.
      block: b, places whose gains are computed together.

    Returns:
      (places [n] int32, of which the first `count` are the chosen ones in order, the last state).
    """
    def going_on(carry):
        return carry[0] < count

    def look_again(carry):
        chosen, state, bounds, places = carry
        best = jax.lax.top_k(bounds, block)[1]
        fresh = jnp.where(jnp.isfinite(bounds[best]), gains(state, best), -jnp.inf)
        place = best[jnp.argmax(fresh)].astype(jnp.int32)
        bounds = bounds.at[best].set(fresh)
        sure = jnp.max(fresh) >= jnp.max(bounds)
        state = jax.tree.map(lambda new, old: jnp.where(sure, new, old), update(state, place),
                             state)
        return (chosen + sure, state,
                bounds.at[place].set(jnp.where(sure, -jnp.inf, bounds[place])),
                places.at[chosen].set(place))  # of a place that is not sure, another comes

    first = in_blocks(lambda places: gains(state, places), len(valid), block)
    start = (jnp.zeros((), jnp.int32), state, jnp.where(valid, first, -jnp.inf),
             jnp.arange(len(valid), dtype=jnp.int32))
    _, state, _, places = jax.lax.while_loop(going_on, look_again, start)
    return places, state
