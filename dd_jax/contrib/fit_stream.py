"""Ridge regression on more rows than fit into memory."""

from __future__ import annotations

import jax.numpy as jnp

from dd_jax.solvers.ridge import RidgeFit
from dd_jax.solvers.stream import Take, solve_moments, stream_moments
from dd_jax.solvers.system import Regulariser, check_ridge, describe, widened


def fit_stream(
    take: Take, count: int, *, ridge: float = 1e-6, mode: str = "trace_mean", chunk: int = 1024
) -> RidgeFit:
    """`fit_features` on N rows in one pass, in memory of P^2 and one chunk: for whole real sets.

    Args:
      take: rows [b] int32 -> (features [b, P], targets [b, K]), for example a network's features
        of gathered and normalised real images, and their centred one-hot labels.
      count: N, the number of rows.
      ridge, mode: as in `fit_features`.
      chunk: rows per pass.

    Returns:
      A `RidgeFit` with float32 weights [P, K]; constants for the derivative.

    Raises:
      ConfigError: negative ridge, unknown mode, count or chunk below 1, results of `take` that do
        not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(6.0)[:, None]
      >>> fit = fit_stream(lambda rows: (x[rows], 2 * x[rows]), 6, ridge=0.0, chunk=4)
      >>> fit.weights.tolist()
      [[2.0]]
    """
    check_ridge(ridge, mode)
    moments = stream_moments(take, count, chunk=chunk)
    narrow = jnp.result_type(float)
    with widened():
        weights, system = solve_moments(moments, Regulariser(ridge, mode), count)
        return RidgeFit(weights.astype(narrow), describe(system, narrow))
