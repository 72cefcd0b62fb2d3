"""What one factor says about single points: leave-one-out errors and influence.

With A = K + mu I and a = A^{-1} Y, the model fitted without point i misses it by

  r_i = y_i - f_without_i(x_i) = a_i / [A^{-1}]_ii,

and deleting i changes the model by ||f - f_without_i||^2 = r_i . a_i in the norm of the kernel
K + mu I; as mu goes to 0 that is the kernel's own norm.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.solvers.system import (
    Regulariser,
    RidgeInfo,
    check_matrix,
    check_ridge,
    describe,
    factorise,
    solve,
    wide_dtype,
    widened,
)


class LeaveOneOut(NamedTuple):
    """The result of `leave_one_out`.

    Attributes:
      residuals: [n, K], y_i minus the prediction of the model that was fitted without i.
      influence: [n], at least 0: how much deleting i changes the model; large for outliers, and
        for points that the model memorises.
      info: of the solve.
    """

    residuals: jax.Array
    influence: jax.Array
    info: RidgeInfo


def leave_one_out(
    gram: jax.Array, targets: jax.Array, *, ridge: float = 1e-6, mode: str = "trace_mean"
) -> LeaveOneOut:
    """Leave-one-out residuals and influence of all points from one Cholesky factor, O(n^3).

    mu is that of the whole set, also for the models without a point.

    Args:
      gram: K, [n, n].
      targets: Y, [n, K].
      ridge, mode: as in `fit_kernel`.

    Returns:
      `LeaveOneOut` in the dtype of the targets; constants for the derivative.

    Raises:
      ConfigError: negative ridge, unknown mode, shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> scores = leave_one_out(jnp.eye(2), jnp.array([[1.0], [-1.0]]), ridge=0.0)
      >>> scores.residuals.tolist(), scores.influence.tolist()
      ([[1.0], [-1.0]], [1.0, 1.0])
    """
    check_ridge(ridge, mode)
    check_matrix("gram", gram, square=True)
    check_matrix("targets", targets, rows=gram.shape[0])
    dtype = targets.dtype
    gram, targets = jax.lax.stop_gradient((gram, targets))
    with widened():
        system = factorise(gram.astype(wide_dtype()), Regulariser(ridge, mode), source=gram.dtype)
        alpha = solve(system, targets.astype(wide_dtype()))
        # A^{-1} = L^{-T} L^{-1}: its diagonal is the squared column norms of L^{-1}.
        eye = jnp.eye(gram.shape[0], dtype=wide_dtype())
        inverse = jax.scipy.linalg.solve_triangular(system.factor, eye, lower=True)
        residuals = alpha / jnp.sum(inverse**2, axis=0)[:, None]
        influence = jnp.sum(residuals * alpha, axis=1)
        return LeaveOneOut(residuals.astype(dtype), influence.astype(dtype),
                           describe(system, dtype))
