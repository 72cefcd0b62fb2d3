"""Kernel ridge regression on features, in closed form, with its own derivative rule.

With features F [n, P] and targets Y [n, K] the fitted linear map has two equal forms,
  dual    W = F^T a,  a = (F F^T + mu I)^{-1} Y     a system of n equations,
  primal  W = (F^T F + mu I)^{-1} F^T Y             a system of P equations,
and predictions are F_t W: the cross-kernel F_t F^T is never formed. mu is the same in both, since
F F^T and F^T F have one trace.

The derivative reuses the Cholesky factor (derived; checked against finite differences). Dual:
  a_ = F W_,  B = A^{-1} a_,  Y_ = B,  A_ = -B a^T,  K_ = A_ + (d mu / d K contribution) I,
  F_ = a W_^T + (K_ + K_^T) F.
Primal, with G = F^T F:
  V = A^{-1} W_,  Y_ = F V,  A_ = -V W^T,  G_ likewise,  F_ = Y V^T + F (G_ + G_^T).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax

from dd_jax.errors import unknown
from dd_jax.solvers.system import (
    Regulariser,
    RidgeInfo,
    check_matrix,
    check_ridge,
    describe,
    factorise,
    gram_cotangent,
    solve,
    times,
    wide_dtype,
    widened,
)

FORMS = ("auto", "dual", "primal")


class RidgeFit(NamedTuple):
    """The result of `fit_features`: `weights` [P, K] so that predictions are `F_t @ weights`."""

    weights: jax.Array
    info: RidgeInfo


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dual(features, targets, reg):
    return _dual_forward(features, targets, reg)[0]


def _dual_forward(features, targets, reg):
    with widened():
        f, y = features.astype(wide_dtype()), targets.astype(wide_dtype())
        system = factorise(times(f, f.T), reg)
        alpha = solve(system, y)
        weights = times(f.T, alpha).astype(features.dtype)
        info = describe(system, features.dtype)
    return RidgeFit(weights, info), (features, system, alpha)


def _dual_backward(reg, saved, cotangent):
    features, system, alpha = saved
    with widened():
        f, w_bar = (x.astype(alpha.dtype) for x in (features, cotangent.weights))
        b = solve(system, times(f, w_bar))
        gram_bar = gram_cotangent(b, alpha, reg, f.shape[0])
        f_bar = times(alpha, w_bar.T) + times(gram_bar + gram_bar.T, f)
        return f_bar.astype(features.dtype), b.astype(features.dtype)


_dual.defvjp(_dual_forward, _dual_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _primal(features, targets, reg):
    return _primal_forward(features, targets, reg)[0]


def _primal_forward(features, targets, reg):
    with widened():
        f, y = features.astype(wide_dtype()), targets.astype(wide_dtype())
        system = factorise(times(f.T, f), reg, count=f.shape[0])
        weights = solve(system, times(f.T, y))
        info = describe(system, features.dtype)
        fit = RidgeFit(weights.astype(features.dtype), info)
    return fit, (features, targets, system, weights)


def _primal_backward(reg, saved, cotangent):
    features, targets, system, weights = saved
    with widened():
        f, y, w_bar = (x.astype(weights.dtype) for x in (features, targets, cotangent.weights))
        v = solve(system, w_bar)
        gram_bar = gram_cotangent(v, weights, reg, f.shape[0])
        f_bar = times(y, v.T) + times(f, gram_bar + gram_bar.T)
        return f_bar.astype(features.dtype), times(f, v).astype(features.dtype)


_primal.defvjp(_primal_forward, _primal_backward)


def fit_features(
    features: jax.Array,
    targets: jax.Array,
    *,
    ridge: float = 1e-6,
    mode: str = "trace_mean",
    stop_trace: bool = False,
    form: str = "auto",
) -> RidgeFit:
    """Fits the linear map W = F^T (F F^T + mu I)^{-1} Y; predictions are F_t W.

    mu = ridge * tr(F F^T) / n for "trace_mean", ridge * tr(F F^T) for "trace_sum", ridge itself
    for "absolute". Where the factorisation fails, mu is raised tenfold until it succeeds; the
    derivative is then that of the system that was solved, with mu's dependence on the trace as
    if it had not been raised.

    Args:
      features: F, [n, P] float32 or float64.
      targets: Y, [n, K], same dtype.
      ridge: the regulariser, at least 0.
      mode: one of `MODES`.
      stop_trace: whether mu is a constant for the derivative.
      form: "dual" solves n equations, "primal" P equations with the same result; "auto" takes
        the fewer. `info` describes the system of the form taken.

    Returns:
      A `RidgeFit`; first derivatives in reverse mode only.

    Raises:
      ConfigError: negative ridge, unknown mode or form, shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> fit = fit_features(jnp.eye(2), jnp.eye(2), ridge=1.0, mode="absolute")
      >>> fit.weights.tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    check_ridge(ridge, mode)
    if form not in FORMS:
        raise unknown("form", form, FORMS)
    check_matrix("features", features)
    check_matrix("targets", targets, rows=features.shape[0])
    count, width = features.shape
    primal = form == "primal" or (form == "auto" and count > width)
    reg = Regulariser(ridge, mode, stop_trace)
    return (_primal if primal else _dual)(features, targets, reg)
