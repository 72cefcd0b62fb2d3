"""A few points that stand for many: the Wasserstein-2 barycentre of free support of one set.

  min_{Z, a} W_2^2( sum_i a_i delta_{z_i}, mean_j delta_{x_j} )

With the weights a fixed at 1/k this is k-means whose clusters have equal masses: a plan T of least
cost, then z_i = sum_j T_ij x_j / a_i, in turn. Plans are entropic, see `solvers.sinkhorn`, with an
epsilon of a thousandth of the largest cost.

Where the weights are learned, those of least cost for given positions are known: every point goes
to the nearest z, and a_i is the mass that arrives at z_i. The positions follow a fifth of the way,
Z <- 0.8 Z + 0.2 Z'.

Source: Cuturi and Doucet, Fast Computation of Wasserstein Barycenters, ICML 2014; Liu et al.,
Dataset Distillation via the Wasserstein Metric, ICCV 2025.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole
from dd_jax.solvers.sinkhorn import sinkhorn

_EPSILON = 1e-3  # of the largest cost: small beside the differences, large beside float32 rounding
_PLAN_ITERATIONS = 100
_DAMPING = 0.8


class Barycentre(NamedTuple):
    """The result of `barycentre`.

    Attributes:
      points: [k, P], Z.
      weights: [k], a, of sum 1.
      cost: [], the transport's mean squared distance, in the unit of the points squared.
      residual: [], by how much the last plan misses the masses of the set, of a total of 1.
    """

    points: jax.Array
    weights: jax.Array
    cost: jax.Array
    residual: jax.Array


def barycentre(
    points: jax.Array,
    count: int,
    *,
    key: jax.Array,
    valid: jax.Array | None = None,
    learn_weights: bool = False,
    iterations: int = 20,
    weight_iterations: int = 10,
) -> Barycentre:
    """The k weighted points nearest to a set in the Wasserstein-2 distance, see the module.

    It moves and scales with the set. A local minimum: equal weights start from normal noise with
    the mean and the mean variance of the set. One point is the mean, without a search.

    Differs from the official code: learned weights are the best ones for the positions (there
    mirror descent along the dual potentials, which approaches them), and start from the barycentre
    of equal weights (there from noise, where a point far from the set loses all weight at once).

    Args:
      points: [n, P] float, x; rows that are not valid may hold anything.
      count: k, static.
      key: PRNG key of the start.
      valid: [n] bool, the rows that count; None for all.
      learn_weights: whether a is learned, as in the paper; otherwise 1/k, as released.
      iterations: static, of plan and positions with equal weights.
      weight_iterations: static, of weights and positions after these, where weights are learned;
        the paper's 10 leave a tenth of a position where it was.

    Returns:
      A `Barycentre` in the dtype of the points.

    Raises:
      ConfigError: a count or iterations below 1, arrays of the wrong shape.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [10.0], [11.0]])
      >>> found = barycentre(points, 2, key=jax.random.key(0))
      >>> sorted(found.points[:, 0].round(2).tolist())
      [0.5, 10.5]
    """
    for name, value in (("count", count), ("iterations", iterations),
                        ("weight_iterations", weight_iterations)):
        require_whole(name, value, example=10)
    valid = _check(points, valid)
    masses = valid.astype(points.dtype) / jnp.maximum(jnp.sum(valid), 1)
    points = jnp.where(valid[:, None], points, 0)  # 0 times a NaN would not be 0
    middle = jnp.sum(masses[:, None] * points, axis=0)
    # About the middle and in units of the spread, so that neither costs the digits of a float32.
    points = jnp.where(valid[:, None], points - middle, 0)
    spread = jnp.sqrt(jnp.sum(masses * jnp.mean(points**2, axis=1)))
    points = points / jnp.where(spread > 0, spread, 1)
    weights = jnp.full((count,), 1 / count, points.dtype)
    if count == 1:
        found = jnp.zeros_like(points[:1])
        plan = masses[None]
    else:
        found = jax.random.normal(key, (count, points.shape[1]), points.dtype)
        found = jax.lax.fori_loop(
            0, iterations, lambda _, z: _centres(_equal_plan(z, points, masses), points, z), found)
        plan = _equal_plan(found, points, masses)
    if learn_weights:
        def follow(_, z):
            centres = _centres(_nearest_plan(z, points, masses), points, z)
            return _DAMPING * z + (1 - _DAMPING) * centres

        found = jax.lax.fori_loop(0, weight_iterations, follow, found)
        plan = _nearest_plan(found, points, masses)
        weights = jnp.sum(plan, axis=1)
    return Barycentre(
        points=middle + spread * found,
        weights=weights,
        cost=spread**2 * jnp.sum(plan * _squared_distances(found, points)),
        residual=jnp.sum(jnp.abs(jnp.sum(plan, axis=0) - masses)),
    )


def _equal_plan(found, points, masses):
    """[k, n]: the transport from equal weights."""
    costs = _squared_distances(found, points)
    largest = jnp.max(costs)
    weights = jnp.full(found.shape[:1], 1 / found.shape[0], found.dtype)
    return sinkhorn(costs / jnp.where(largest > 0, largest, 1), weights, masses,
                    epsilon=_EPSILON, iterations=_PLAN_ITERATIONS).plan


def _nearest_plan(found, points, masses):
    """[k, n]: the transport from the best weights."""
    nearest = jnp.argmin(_squared_distances(found, points), axis=0)
    return jax.nn.one_hot(nearest, found.shape[0], axis=0, dtype=points.dtype) * masses


def _centres(plan, points, found):
    """Means of the points by the rows of a plan; a row without mass stays where it is."""
    mass = jnp.sum(plan, axis=1, keepdims=True)
    means = jnp.matmul(plan, points, precision="highest") / jnp.where(mass > 0, mass, 1)
    return jnp.where(mass > 0, means, found)


def _squared_distances(found, points):
    """[k, n], at least 0."""
    cross = jnp.matmul(found, points.T, precision="highest")
    squares = jnp.sum(found**2, axis=1)[:, None] + jnp.sum(points**2, axis=1)
    return jnp.maximum(squares - 2 * cross, 0)


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
