"""K-means by Lloyd's algorithm with static shapes, for use inside jit.

  a_i = argmin_j |x_i - c_j|^2,   c_j = mean of { x_i : a_i = j },   a fixed number of times

Squared distances are |x|^2 - 2 <x, c> + |c|^2 about the mean of the centres, a matrix product.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError, require_whole

_TIE = 1e-3  # fraction by which squared distances may differ and still count as equal


class Clusters(NamedTuple):
    """The result of `k_means`.

    Attributes:
      centres: [k, P], in the dtype of the points.
      assignment: [n] int32, the nearest of these centres; -1 for a row that is not valid.
      inertia: [], sum over valid points of the squared distance to the nearest centre.
    """

    centres: jax.Array
    assignment: jax.Array
    inertia: jax.Array


def _check(points: jax.Array, valid: jax.Array | None) -> jax.Array:
    if points.ndim != 2 or not jnp.issubdtype(points.dtype, jnp.floating) or not points.shape[0]:
        raise ConfigError(f"points are {points.dtype} of shape {points.shape}, expected [n, P] "
                          "floats", fix="pass one row of features for each point")
    if valid is None:
        return jnp.ones(points.shape[:1], bool)
    if valid.shape != points.shape[:1]:
        raise ConfigError(f"valid has shape {valid.shape}, expected {points.shape[:1]}",
                          fix="pass one boolean for each point")
    return valid


def _squared_distances(points: jax.Array, centres: jax.Array) -> jax.Array:
    """[n, k], at least 0."""
    # About a common middle: a large mean of the features would cost the digits of the difference.
    middle = jnp.mean(centres, axis=0)
    points, centres = points - middle, centres - middle
    cross = jnp.matmul(points, centres.T, precision="highest")
    return jnp.maximum(
        jnp.sum(points**2, axis=1)[:, None] - 2 * cross + jnp.sum(centres**2, axis=1), 0
    )


def k_means(
    points: jax.Array,
    count: int,
    *,
    key: jax.Array,
    valid: jax.Array | None = None,
    iterations: int = 10,
    chunk: int | None = None,
) -> Clusters:
    """Clusters points around `count` centres; the sum of squared distances never rises.

    Starts from distinct random valid points; where there are fewer of them than centres, they are
    gone through again. A centre without points stays where it is.

    Args:
      points: [n, P] float; rows that are not valid may hold anything.
      count: k, number of centres, static.
      key: PRNG key of the start.
      valid: [n] bool, the rows that count; None for all.
      iterations: of assigning and averaging, static; 0 gives the start.
      chunk: points whose distances to all centres are held at a time; None for all of them.

    Returns:
      `Clusters`.

    Raises:
      ConfigError: count below 1, iterations below 0, arrays of the wrong shape.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
      >>> sorted(k_means(points, 2, key=jax.random.key(0)).centres[:, 0].tolist())
      [0.5, 10.5]
    """
    for name, value, least in (("count", count, 1), ("iterations", iterations, 0)):
        require_whole(name, value, least=least, example=10)
    valid = _check(points, valid)
    points = jnp.where(valid[:, None], points, 0)  # 0 times a NaN would not be 0

    def nearest_of(points, centres):
        distances = _squared_distances(points, centres)
        return jnp.argmin(distances, axis=1), jnp.min(distances, axis=1)

    def assign(centres):
        nearest, far = in_chunks(lambda some: nearest_of(some, centres), points,
                                 size=chunk or len(points))
        nearest = jnp.where(valid, nearest, -1).astype(jnp.int32)
        return nearest, jnp.sum(jnp.where(valid, far, 0))

    def totals(nearest):
        if chunk is not None:  # a matrix of members would be as large as that of distances
            places = jnp.where(valid, nearest, count)
            return (jax.ops.segment_sum(valid.astype(points.dtype), places, count),
                    jax.ops.segment_sum(points, places, count))
        members = jax.nn.one_hot(nearest, count, dtype=points.dtype)
        return jnp.sum(members, axis=0), jnp.matmul(members.T, points, precision="highest")

    def update(_, centres):
        sizes, sums = totals(assign(centres)[0])
        sizes = sizes[:, None]
        return jnp.where(sizes > 0, sums / jnp.maximum(sizes, 1), centres)

    centres = jax.lax.fori_loop(0, iterations, update, points[_start(valid, count, key)])
    assignment, inertia = assign(centres)
    return Clusters(centres, assignment, inertia)


def _start(valid: jax.Array, count: int, key: jax.Array) -> jax.Array:
    """[count] int32: random valid places, distinct as long as there are enough."""
    noise = jnp.where(valid, jax.random.uniform(key, valid.shape), -1.0)
    order = jax.lax.top_k(noise, min(count, valid.shape[0]))[1]
    return order[jnp.arange(count) % jnp.maximum(jnp.sum(valid), 1)]


def nearest_rows(
    points: jax.Array, centres: jax.Array, valid: jax.Array | None = None, *, count: int = 1
) -> jax.Array:
    """The valid points nearest to each centre; a point may be that of several centres.

    Of points that are equally near, to a thousandth of the squared distance, the first one: the
    two points of a cluster of two are, and their order must not depend on rounding.

    Args:
      points: [n, P] float.
      centres: [k, P] float.
      valid: [n] bool, the rows that may be returned; None for all.
      count: points for each centre, static; where there are fewer valid ones than that, they are
        gone through again.

    Returns:
      [k * count] int32 rows of `points`, centre by centre and the nearest first.

    Raises:
      ConfigError: points or valid of the wrong shape.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [10.0]])
      >>> nearest_rows(points, jnp.array([[0.7], [8.0]])).tolist()
      [1, 2]
    """
    valid = _check(points, valid)
    distances = jnp.where(valid[:, None], _squared_distances(points, centres), jnp.inf)

    def take(distances, _):
        limit = (1 + _TIE) * jnp.min(distances, axis=0)
        row = jnp.argmax(distances <= limit, axis=0)  # the first that is true
        return distances.at[row, jnp.arange(centres.shape[0])].set(jnp.inf), row

    order = jax.lax.scan(take, distances, length=count)[1].T
    place = jnp.arange(count) % jnp.maximum(jnp.sum(valid), 1)
    return order[:, place].reshape(-1).astype(jnp.int32)
