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

import jax
import jax.numpy as jnp

from dd_jax.select.greedy_choices import directions
from dd_jax.select.rules import unweighted
from dd_jax.select.selector import Chosen

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
    return unweighted(_lazy(points, valid, count, block=block), count)


@functools.partial(jax.jit, static_argnames="block")
def _lazy(points, valid, count, *, block):
    points = directions(points, valid)

    def likeness(some):
        return jnp.where(valid, (1 + jnp.matmul(some, points.T, precision="highest")) / 2, 0)

    def gains(places, covered):
        return jnp.sum(jnp.maximum(likeness(points[places]) - covered, 0), axis=1)

    def going_on(carry):
        return carry[0] < count

    def look_again(carry):
        chosen, covered, bounds, places = carry
        best = jax.lax.top_k(bounds, block)[1]
        fresh = jnp.where(jnp.isfinite(bounds[best]), gains(best, covered), -jnp.inf)
        place = best[jnp.argmax(fresh)].astype(jnp.int32)
        bounds = bounds.at[best].set(fresh)
        sure = jnp.max(fresh) >= jnp.max(bounds)
        after = jnp.maximum(covered, likeness(points[place][None])[0])
        return (chosen + sure, jnp.where(sure, after, covered),
                bounds.at[place].set(jnp.where(sure, -jnp.inf, bounds[place])),
                places.at[chosen].set(place))  # of a place that is not sure, another comes

    everything = jnp.arange(len(points))
    none = jnp.zeros(len(points))
    blocks = jnp.minimum(jnp.arange(-(-len(points) // block) * block), len(points) - 1)
    first = jax.lax.map(lambda part: gains(part, none), blocks.reshape(-1, block))
    bounds = jnp.where(valid, first.reshape(-1)[: len(points)], -jnp.inf)
    start = (jnp.zeros((), jnp.int32), none, bounds, everything.astype(jnp.int32))
    return jax.lax.while_loop(going_on, look_again, start)[3]
