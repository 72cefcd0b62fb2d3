"""Kernel ridge regression on a given Gram matrix, with its own derivative rule.

  a = (K + mu I)^{-1} Y,  predictions are K_t a with K_t [n_t, n].

The derivative reuses the Cholesky factor:
  B = A^{-1} a_,  Y_ = B,  A_ = -B a^T,  K_ = A_ + (d mu / d K contribution) I, symmetrised.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax

from dd_jax.solvers.system import (
    Regulariser,
    RidgeInfo,
    check_matrix,
    check_ridge,
    describe,
    factorise,
    gram_cotangent,
    solve,
    wide_dtype,
    widened,
)


class KernelFit(NamedTuple):
    """The result of `fit_kernel`: `alpha` [n, K] so that predictions are `K_t @ alpha`."""

    alpha: jax.Array
    info: RidgeInfo


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fit(gram, targets, reg):
    return _forward(gram, targets, reg)[0]


def _forward(gram, targets, reg):
    with widened():
        system = factorise(gram.astype(wide_dtype()), reg, source=gram.dtype)
        alpha = solve(system, targets.astype(wide_dtype()))
        fit = KernelFit(alpha.astype(targets.dtype), describe(system, targets.dtype))
        # Empty slices carry the arguments' dtypes, which a rule may not save by themselves.
        return fit, (gram[:0], targets[:0], system, alpha)


def _backward(reg, saved, cotangent):
    gram, targets, system, alpha = saved
    with widened():
        b = solve(system, cotangent.alpha.astype(alpha.dtype))
        gram_bar = gram_cotangent(b, alpha, reg, alpha.shape[0])
        gram_bar = 0.5 * (gram_bar + gram_bar.T)
        return gram_bar.astype(gram.dtype), b.astype(targets.dtype)


_fit.defvjp(_forward, _backward)


def fit_kernel(
    gram: jax.Array,
    targets: jax.Array,
    *,
    ridge: float = 1e-6,
    mode: str = "trace_mean",
    stop_trace: bool = False,
) -> KernelFit:
    """Fits a = (K + mu I)^{-1} Y; predictions are K_t a.

    mu = ridge * tr(K) / n for "trace_mean", ridge * tr(K) for "trace_sum", ridge itself for
    "absolute"; where the factorisation fails it is raised as in `fit_features`. Only the symmetric
    part of K counts, and its cotangent is symmetric.

    Args:
      gram: K, [n, n] float32 or float64, positive semi-definite up to rounding.
      targets: Y, [n, K].
      ridge: the regulariser, at least 0.
      mode: one of `MODES`.
      stop_trace: whether mu is a constant for the derivative.

    Returns:
      A `KernelFit` in the dtype of the targets; first derivatives in reverse mode only.

    Raises:
      ConfigError: negative ridge, unknown mode, shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> fit_kernel(jnp.eye(2), jnp.eye(2), ridge=1.0).alpha.tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    check_ridge(ridge, mode)
    check_matrix("gram", gram, square=True)
    check_matrix("targets", targets, rows=gram.shape[0])
    return _fit(gram, targets, Regulariser(ridge, mode, stop_trace))
