"""Entropic optimal transport between two weighted sets of points, in the log domain.

  min_T <T, C> + epsilon KL(T | a b^T)   over T >= 0 with T 1 = a, T^T 1 = b
  T_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon)

The potentials f and g are made to fit the masses in turn, each in closed form. Epsilon falls
geometrically from the range of the costs to its value in the first half of the iterations: a small
epsilon alone would move the potentials by so little in each iteration that they never arrive.

Source: Cuturi, Sinkhorn Distances, NeurIPS 2013; Schmitzer, Stabilized Sparse Scaling Algorithms
for Entropy Regularized Transport Problems, SISC 2019 (the falling epsilon).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole


class Potentials(NamedTuple):
    """The dual variables of a transport, up to a constant that moves from one to the other.

    Attributes:
      rows: [k], f: at the optimum the derivative of the cost in the masses a.
      columns: [n], g: that in b.
    """

    rows: jax.Array
    columns: jax.Array


class Transport(NamedTuple):
    """The result of `sinkhorn`.

    Attributes:
      plan: [k, n], T; its rows sum to a up to rounding.
      potentials: `Potentials`.
      residual: [], sum over columns of |sum_i T_ij - b_j|, of a total mass of 1.
    """

    plan: jax.Array
    potentials: Potentials
    residual: jax.Array


def sinkhorn(
    cost: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    epsilon: float | jax.Array,
    iterations: int,
) -> Transport:
    """Moves the masses a onto the masses b at the least cost, see the module.

    The plan costs at most epsilon * log(min(k, n)) more than the best one, once the residual is 0.

    Args:
      cost: [k, n] float, C; finite also where a mass is 0.
      a: [k] float, masses of the rows, of sum 1; 0 leaves a row out.
      b: [n] float, masses of the columns, of sum 1; 0 leaves a column out.
      epsilon: > 0, in the unit of the costs; in float32 rounding adds about 1e-7 * max(C) to each
        cost, so not below 1e-4 of the largest one.
      iterations: static; of both potentials each. A hundred leave a residual of about 1 % at an
        epsilon of a thousandth of the costs' range.

    Returns:
      A `Transport` in the dtype of the costs.

    Raises:
      ConfigError: arrays whose shapes do not fit, iterations below 1, an epsilon of 0 or less.

    Example:
      >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> half = jnp.array([0.5, 0.5])
      >>> sinkhorn(cost, half, half, epsilon=0.01, iterations=20).plan.round(3).tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    _check(cost, a, b, epsilon, iterations)
    log_a, log_b = jnp.log(a)[:, None], jnp.log(b)
    # At least epsilon, so that it falls; equal costs have no range.
    widest = jnp.maximum(jnp.max(cost) - jnp.min(cost), epsilon)

    def rows(g, eps):
        return -eps * jax.nn.logsumexp((g - cost) / eps + log_b, axis=1)

    def columns(f, eps):
        return -eps * jax.nn.logsumexp((f[:, None] - cost) / eps + log_a, axis=0)

    def body(i, current):
        left = jnp.maximum(1 - (i + 1) / max(iterations // 2, 1), 0)
        eps = jnp.asarray(epsilon * (widest / epsilon) ** left, cost.dtype)
        g = columns(current.rows, eps)
        return Potentials(rows(g, eps), g)

    start = Potentials(jnp.zeros_like(cost[:, 0]), jnp.zeros_like(cost[0]))
    f, g = jax.lax.fori_loop(0, iterations, body, start)
    exponent = (f[:, None] + g - cost) / epsilon
    # Unused columns have potentials too; their mass of 0 must not meet an overflow.
    plan = jnp.exp(jnp.where(b > 0, exponent + log_a + log_b, -jnp.inf)).astype(cost.dtype)
    return Transport(plan, Potentials(f, g), jnp.sum(jnp.abs(jnp.sum(plan, axis=0) - b)))


def _check(cost, a, b, epsilon, iterations) -> None:
    good = cost.ndim == 2 and min(cost.shape) > 0 and jnp.issubdtype(cost.dtype, jnp.floating)
    if not good:
        raise ConfigError(f"cost is {cost.dtype} of shape {cost.shape}, expected [k, n] floats",
                          fix="pass one row of costs for each of the masses a")
    if a.shape != cost.shape[:1] or b.shape != cost.shape[1:]:
        raise ConfigError(f"masses have shapes {a.shape} and {b.shape} for costs of {cost.shape}",
                          fix="pass one mass for each row and one for each column of the costs")
    require_whole("iterations", iterations, example=500)
    if isinstance(epsilon, (int, float)) and not 0.0 < epsilon < float("inf"):
        raise ConfigError(f"epsilon is {epsilon!r}, expected a positive finite number",
                          fix="pass a hundredth of the range of the costs")
