"""Images nearest to the centres of clusters, each image for one centre."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from dd_jax.select.rules import unweighted
from dd_jax.select.selector import Chosen
from dd_jax.solvers.k_means import k_means

_MOST_NUMBERS = 2**24  # distances of a chunk of points to all centres


def chunk_of(size: int, count: int) -> int:
    """Points whose distances to all centres are held together, at most 64 MiB of them.

    Example:
      >>> chunk_of(1000, 10), chunk_of(10**7, 100)
      (1000, 167772)
    """
    return max(1, min(size, _MOST_NUMBERS // count))


def medoids(
    points: jax.Array, valid: jax.Array, count: int, key: jax.Array, *, iterations: int = 10,
    chunk: int | None = None,
) -> Chosen:
    """K-means with a centre for each place of the budget; of each the nearest image that is left.

    Centres have their turns by the size of their clusters, the largest first.

    Args:
      points: [n, P] features.
      valid, count, key: as for `Selector.choose`; the key draws where the centres start.
      iterations: of Lloyd's algorithm.
      chunk: points whose distances to all centres are held together; None: see `chunk_of`.

    Returns:
      `Chosen`, weights 1; distinct images, also where two centres have the same nearest one.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [2.0], [8.0], [9.0]])
      >>> sorted(medoids(points, jnp.ones(5, bool), 2, jax.random.key(0)).rows.tolist())
      [1, 3]
    """
    chunk = chunk_of(len(points), count) if chunk is None else min(chunk, len(points))
    return unweighted(_medoids(points, valid, key, count=count, iterations=iterations,
                               chunk=chunk), count)


@functools.partial(jax.jit, static_argnames=("count", "iterations", "chunk"))
def _medoids(points, valid, key, *, count, iterations, chunk):
    points = jnp.where(valid[:, None], points, 0)
    clusters = k_means(points, count, key=key, valid=valid, iterations=iterations, chunk=chunk)
    sizes = jnp.zeros(count).at[clusters.assignment].add(valid.astype(jnp.float32))
    centres = clusters.centres[jnp.argsort(-sizes, stable=True)]

    def nearest(left, centre):
        far = jnp.where(left, jnp.sum((points - centre) ** 2, axis=1), jnp.inf)
        place = jnp.argmin(far)
        return left.at[place].set(False), place

    return jax.lax.scan(nearest, valid, centres)[1]
