"""CRAIG: images whose gradients, each counted for those that it is nearest to, stand for all.

  F(S) = sum_j max_{x in S} s(j, x),   s(j, x) = max_dist - |G_j - G_x| + 1e-3
  w_x = the number of images whose nearest pick is x

max_dist takes no part in the choice: the first pick is the one of the least sum of distances, and
the gain of a later one is sum_j max(0, d_j - |G_j - G_x|) with the distance d_j to the nearest pick
so far. So gains are computed from distances, which loses no digits where one image is far from all.

Source: Mirzasoleiman, Bilmes and Leskovec, Coresets for Data-efficient Training of Machine Learning
Models, ICML 2020.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.select.facility_location import block_of, in_blocks, lazily
from dd_jax.select.gradients import LastLayer, distances, masked, take
from dd_jax.select.selector import Chosen


class _Owned(NamedTuple):
    """How far each image is from its nearest pick [n], the number of that pick [n], and how many
    there are."""

    far: jax.Array
    owner: jax.Array
    picks: jax.Array


def craig(
    seen: LastLayer, valid: jax.Array, count: int, key: jax.Array | None = None, *,
    block: int | None = None,
) -> Chosen:
    """Greedy choice by distances between gradients, by lazy bounds.

    Args:
      seen: of [n] images, see `gradients.LastLayer`.
      valid, count, key: as for `Selector.choose`.
      block: candidates at a time, 4 n bytes each; None: see `facility_location.block_of`.

    Returns:
      `Chosen`; each weight is the number of the images nearest to this pick, itself among them, so
      that weights sum to the number of images.

    Example:
      >>> error = jnp.array([[1.0], [1.1], [0.9], [0.8], [-4.0]]) * jnp.array([1.0, -1.0])
      >>> found = craig(LastLayer(error, jnp.ones((5, 2))), jnp.ones(5, bool), 2)
      >>> found.rows.tolist(), found.weights.tolist()
      ([2, 4], [4.0, 1.0])
    """
    block = block_of(len(valid)) if block is None else min(block, len(valid))
    places, weights = _craig(seen, valid, count, block=block)
    return Chosen(places[:count], weights[:count])


@functools.partial(jax.jit, static_argnames="block")
def _craig(seen, valid, count, *, block):
    seen, size = masked(seen, valid), len(valid)

    def far(places):
        return jnp.where(valid, distances(take(seen, places), seen), 0)

    def gains(state, places):
        return jnp.sum(jnp.maximum(state.far - far(places), 0), axis=1)

    def update(state, place):
        to = far(place[None])[0]
        owner = jnp.where(to < state.far, state.picks, state.owner)
        return _Owned(jnp.minimum(state.far, to), owner.at[place].set(state.picks),
                      state.picks + 1)

    sums = in_blocks(lambda places: jnp.sum(far(places), axis=1), size, block)
    first = jnp.argmin(jnp.where(valid, sums, jnp.inf)).astype(jnp.int32)
    state = update(_Owned(jnp.full(size, jnp.inf), jnp.zeros(size, jnp.int32), jnp.int32(0)), first)
    rest, state = lazily(gains, update, state, valid.at[first].set(False), count - 1, block=block)
    places = jnp.concatenate([first[None], rest])[:size]
    return places, jnp.zeros(size).at[state.owner].add(valid.astype(jnp.float32))
