"""Greedy choices by features: each image is the best one beside those that were chosen before.

  herding      argmin_x | sum_S (h - mean) + h_x - mean |
  k-center     argmax_x min_{j in S} | h_x - h_j |
  graph cut    argmax_x lam sum_j s(j, x) - 2 sum_{j in S} s(j, x),   s(a, b) = (1 + cos(a, b)) / 2

What a choice leaves behind is a sum or one number for each image, so that a step takes O(n P) time
and memory: no matrix of all pairs.

Differs from the code that most papers take them from (DeepCore): herding there takes the image that
is farthest from what is missing, where the method takes the nearest one; k-center keeps a table of
chosen by all images, where a running minimum is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.select.rules import unweighted
from dd_jax.select.selector import Chosen
from dd_jax.types import PyTree


def greedy(
    gains: Callable[[PyTree, jax.Array], jax.Array],
    update: Callable[[PyTree, jax.Array], PyTree],
    state: PyTree,
    valid: jax.Array,
    count: int | jax.Array,
) -> jax.Array:
    """Takes the image of the largest gain, `count` times; of equal ones the first.

    Args:
      gains: (state, how many are chosen) -> [n].
      update: (state, place) -> state after this image was chosen.
      state: before the first choice.
      valid: [n] bool, what may be chosen.
      count: may be traced, so that budgets share a program.

    Returns:
      [n] int32, of which the first `count` are the chosen places in order.

    Example:
      >>> values = jnp.array([2.0, 5.0, 3.0])
      >>> greedy(lambda s, i: values, lambda s, p: s, (), jnp.ones(3, bool), 2)[:2].tolist()
      [1, 2]
    """
    def step(i, carry):
        state, left, places = carry
        place = jnp.argmax(jnp.where(left, gains(state, i), -jnp.inf)).astype(jnp.int32)
        return update(state, place), left.at[place].set(False), places.at[i].set(place)

    places = jnp.zeros(valid.shape, jnp.int32)
    return jax.lax.fori_loop(0, count, step, (state, valid, places))[2]


def about_mean(points: jax.Array, valid: jax.Array) -> jax.Array:
    """[n, P] less the mean of those that are valid; 0 in the rows of others."""
    points = jnp.where(valid[:, None], points, 0)
    mean = jnp.sum(points, axis=0) / jnp.maximum(jnp.sum(valid), 1)
    return jnp.where(valid[:, None], points - mean, 0)


def directions(points: jax.Array, valid: jax.Array) -> jax.Array:
    """[n, P], rows of length 1; 0 for others and where a row is 0."""
    points = jnp.where(valid[:, None], points, 0)
    return points / jnp.maximum(jnp.linalg.norm(points, axis=1, keepdims=True), 1e-12)


@jax.jit
def _herding(points, valid, count):
    points = about_mean(points, valid)  # the mean cancels: what is missing is minus their sum
    squares = jnp.sum(points**2, axis=1)

    def gains(total, i):
        return -(squares + 2 * jnp.matmul(points, total, precision="highest"))

    return greedy(gains, lambda total, p: total + points[p], jnp.zeros(points.shape[1]), valid,
                  count)


def herding(points: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None):
    """The mean of the chosen stays as near to the mean of all as one more image can bring it.

    Args:
      points: [n, P] features.
      valid, count, key: as for `Selector.choose`.

    Returns:
      `Chosen`, weights 1.

    Example:
      >>> points = jnp.array([[0.0], [1.0], [2.0], [9.0]])
      >>> herding(points, jnp.ones(4, bool), 3).rows.tolist()
      [2, 1, 3]

    Source: Welling, Herding Dynamical Weights to Learn, ICML 2009.
    """
    return unweighted(_herding(points, valid, count), count)


@jax.jit
def _k_center(points, valid, count, first):
    points = about_mean(points, valid)

    def gains(nearest, i):
        return jnp.where(i == 0, first, nearest)

    def update(nearest, place):
        return jnp.minimum(nearest, jnp.sum((points - points[place]) ** 2, axis=1))

    return greedy(gains, update, jnp.full(valid.shape, jnp.inf), valid, count)


def k_center(
    points: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None, *,
    first: str = "mean",
) -> Chosen:
    """Each image is the one that is farthest from all that were chosen.

    Args:
      points: [n, P] features.
      valid, count, key: as for `Selector.choose`.
      first: the image to begin with, the one nearest to the "mean", or a "random" one.

    Example:
      >>> points = jnp.array([[0.0], [4.0], [5.0], [9.0]])
      >>> k_center(points, jnp.ones(4, bool), 3).rows.tolist()
      [1, 3, 0]

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set
    Approach, ICLR 2018.
    """
    begin = (jax.random.uniform(key, valid.shape) if first == "random"
             else -jnp.sum(about_mean(points, valid) ** 2, axis=1))
    return unweighted(_k_center(points, valid, count, begin), count)


@jax.jit
def _graph_cut(points, valid, count, weight):
    points = directions(points, valid)
    total = jnp.sum(points, axis=0)
    all_pairs = jnp.sum(valid) + jnp.matmul(points, total, precision="highest")

    def gains(chosen, i):
        return weight * all_pairs / 2 - 2 * chosen

    def update(chosen, place):
        return chosen + (1 + jnp.matmul(points, points[place], precision="highest")) / 2

    return greedy(gains, update, jnp.zeros(valid.shape), valid, count)


def graph_cut(
    points: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None, *,
    weight: float = 1.0,
) -> Chosen:
    """Like all images, and unlike those that were chosen.

    Args:
      points: [n, P] features, of which only the direction counts.
      valid, count, key: as for `Selector.choose`.
      weight: lam, of the likeness to all.

    Example:
      >>> points = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
      >>> graph_cut(points, jnp.ones(3, bool), 2).rows.tolist()
      [1, 2]

    Source: Iyer and Bilmes, Submodular Optimization with Submodular Cover and Submodular Knapsack
    Constraints, NeurIPS 2013; as in Dataset Quantization, ICCV 2023.
    """
    return unweighted(_graph_cut(points, valid, count, weight), count)
