"""The labels of given images that make kernel ridge regression fit a real set best, in closed form.

With K_ss [n, n] of the images and K_ts [N, n] between the real set and them,

  Y_s = (K_ss + eps I) W,   W = (K_ts^T K_ts + eps I)^{-1} K_ts^T Y_t,   eps = 1e-6 / n,

so that (K_ss + eps I)^{-1} Y_s = W is the regression of the real targets on the kernel's columns.
As eps goes to 0 this is the least-squares solution of K_ts K_ss^{-1} Y_s = Y_t for n <= N.

Source: Nguyen, Chen, Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.solvers.stream import Take, solve_moments, stream_moments
from dd_jax.solvers.system import (
    Regulariser,
    RidgeInfo,
    check_matrix,
    check_ridge,
    describe,
    times,
    wide_dtype,
    widened,
)


class SolvedLabels(NamedTuple):
    """The result of `label_solve`: `labels` [n, K], unconstrained, and `info` of the system."""

    labels: jax.Array
    info: RidgeInfo


def label_solve(
    gram: jax.Array, take: Take, count: int, *, ridge: float = 1e-6, chunk: int = 1024
) -> SolvedLabels:
    """Solves for the labels Y_s of images with Gram matrix K_ss, see the module.

    The real set is gone through once, `chunk` rows at a time: memory O(n^2 + chunk n). The system
    has the square of the kernel's condition number: give float64 kernels where there are any.

    Args:
      gram: K_ss, [n, n].
      take: rows [b] int32 of the real set -> (K_ts block [b, n], targets [b, K]); traced where
        float64 exists.
      count: N >= n, the number of real rows.
      ridge: eps * n, absolute.
      chunk: rows per pass.

    Returns:
      `SolvedLabels` in float32; constants for the derivative.

    Raises:
      ConfigError: negative ridge, fewer real rows than images, shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> gram = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> solved = label_solve(gram, lambda rows: (gram[rows], jnp.eye(2)[rows]), 2)
      >>> [[round(x, 3) for x in row] for row in solved.labels.tolist()]
      [[1.0, 0.0], [0.0, 1.0]]
    """
    check_ridge(ridge, "absolute")
    check_matrix("gram", gram, square=True)
    size = gram.shape[0]
    if count < size:
        raise ConfigError(f"{count} real rows for {size} images, expected at least as many",
                          fix="solve for fewer images")
    moments = stream_moments(take, count, chunk=chunk)
    if moments.gram.shape[0] != size:
        raise ConfigError(
            f"the kernel block has {moments.gram.shape[0]} columns, the gram {size} rows",
            fix="give take the kernel between real rows and the same images",
        )
    eps = ridge / size
    narrow = jnp.result_type(float)
    with widened():
        weights, system = solve_moments(moments, Regulariser(eps, "absolute"), count)
        k = jax.lax.stop_gradient(gram).astype(wide_dtype())
        labels = times(k, weights) + system.ridge * weights
        return SolvedLabels(labels.astype(narrow), describe(system, narrow))
