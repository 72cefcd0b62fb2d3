"""Kernel ridge regression on features, in closed form, with its own derivative rule.

With features F [n, P], targets Y [n, K], K = F F^T, A = K + mu I and a = A^{-1} Y, the fitted
linear map is W = F^T a, and predictions are F_t W: the cross-kernel F_t F^T is never formed.

The Gram matrix is accumulated, factorised and solved in float64 wherever the backend has it: with
mu = 1e-6 tr(K)/n the condition number reaches n / 1e-6, beyond float32. TPUs solve in float32 at
the highest precision with one step of iterative refinement.

The derivative reuses the Cholesky factor (derived; checked against finite differences):
  a_ = F W_,  B = A^{-1} a_,  Y_ = B,  A_ = -B a^T,  K_ = A_ + (d mu / d K contribution) I,
  F_ = a W_^T + (K_ + K_^T) F.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown

MODES = ("trace_mean", "trace_sum", "absolute")
_LADDER_STEPS = 8


class RidgeInfo(NamedTuple):
    """How a solve went; scalars for the metrics.

    Attributes:
      ridge: [] float32, the value that was added to the diagonal.
      jitter_steps: [] int32, how often the ridge had to be raised tenfold (0 is normal).
      condition: [] float32, an estimate of cond(A) from the factor's diagonal (a lower bound).
    """

    ridge: jax.Array
    jitter_steps: jax.Array
    condition: jax.Array


class RidgeFit(NamedTuple):
    """The result of `fit_features`: `weights` [P, K] so that predictions are `F_t @ weights`."""

    weights: jax.Array
    info: RidgeInfo


def _wide() -> bool:
    return jax.default_backend() != "tpu"


def _ridge_value(gram: jax.Array, reg: float, mode: str) -> jax.Array:
    trace = jnp.trace(gram)
    n = gram.shape[0]
    if mode == "absolute":
        return jnp.asarray(reg, gram.dtype)
    scaled = reg * (trace / n if mode == "trace_mean" else trace)
    # An all-zero set has trace 0; a ridge of exactly 0 would leave nothing to factorise.
    return scaled + jnp.finfo(jnp.float32).tiny


def _factor(gram: jax.Array, ridge: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cholesky factor of gram + ridge I, raising the ridge tenfold until it is finite."""
    eye = jnp.eye(gram.shape[0], dtype=gram.dtype)

    def attempt(value):
        return jnp.linalg.cholesky(gram + value * eye)

    def failed(carry):
        factor, _, steps = carry
        return (~jnp.all(jnp.isfinite(factor))) & (steps < _LADDER_STEPS)

    # The first raise is at least rounding error of the diagonal, and never exactly zero.
    floor = jnp.finfo(gram.dtype).eps * jnp.trace(gram) / gram.shape[0]
    floor = jnp.maximum(floor, jnp.finfo(jnp.float32).tiny)

    def raise_ridge(carry):
        _, value, steps = carry
        value = jnp.maximum(10 * value, floor)
        return attempt(value), value, steps + 1

    start = (attempt(ridge), ridge, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(failed, raise_ridge, start)


def _solve(factor: jax.Array, gram: jax.Array, ridge: jax.Array, rhs: jax.Array) -> jax.Array:
    out = jax.scipy.linalg.cho_solve((factor, True), rhs)
    if gram.dtype == jnp.float32:
        residual = rhs - jnp.matmul(gram, out, precision="highest") - ridge * out
        out = out + jax.scipy.linalg.cho_solve((factor, True), residual)
    return out


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _fit(features, targets, reg, mode, stop_trace):
    return _fit_forward(features, targets, reg, mode, stop_trace)[0]


def _fit_forward(features, targets, reg, mode, stop_trace):
    dtype = features.dtype
    with jax.enable_x64(_wide() or jax.config.jax_enable_x64):
        wide = jnp.float64 if _wide() else jnp.float32
        f, y = features.astype(wide), targets.astype(wide)
        gram = jnp.matmul(f, f.T, precision="highest")
        gram = 0.5 * (gram + gram.T)
        factor, ridge, steps = _factor(gram, _ridge_value(gram, reg, mode))
        alpha = _solve(factor, gram, ridge, y)
        weights = jnp.matmul(f.T, alpha, precision="highest").astype(dtype)
        diagonal = jnp.diagonal(factor)
        condition = (jnp.max(diagonal) / jnp.min(diagonal)) ** 2
        info = RidgeInfo(ridge.astype(dtype), steps, condition.astype(dtype))
    return RidgeFit(weights, info), (features, gram, factor, ridge, alpha)


def _fit_backward(reg, mode, stop_trace, saved, cotangent):
    features, gram, factor, ridge, alpha = saved
    dtype = features.dtype
    with jax.enable_x64(_wide() or jax.config.jax_enable_x64):
        f = features.astype(gram.dtype)
        w_bar = cotangent.weights.astype(gram.dtype)
        alpha_bar = jnp.matmul(f, w_bar, precision="highest")
        b = _solve(factor, gram, ridge, alpha_bar)
        gram_bar = -jnp.matmul(b, alpha.T, precision="highest")
        if mode != "absolute" and not stop_trace:
            n = gram.shape[0]
            scale = reg / n if mode == "trace_mean" else reg
            gram_bar = gram_bar - scale * jnp.sum(b * alpha) * jnp.eye(n, dtype=gram.dtype)
        f_bar = jnp.matmul(alpha, w_bar.T, precision="highest")
        f_bar = f_bar + jnp.matmul(gram_bar + gram_bar.T, f, precision="highest")
        return f_bar.astype(dtype), b.astype(dtype)


_fit.defvjp(_fit_forward, _fit_backward)


def check_ridge(reg: float, mode: str) -> None:
    """Refuses an unknown mode and a negative or non-finite ridge, before anything compiles.

    Raises:
      ConfigError: as said.
    """
    if mode not in MODES:
        raise unknown("ridge mode", mode, MODES)
    if not (0.0 <= reg < float("inf")):
        raise ConfigError(f"ridge is {reg!r}, expected a finite number of at least 0",
                          fix="pass for example ridge=1e-6")


def fit_features(
    features: jax.Array,
    targets: jax.Array,
    *,
    ridge: float = 1e-6,
    mode: str = "trace_mean",
    stop_trace: bool = False,
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

    Returns:
      A `RidgeFit`; first derivatives in reverse mode only.

    Raises:
      ConfigError: negative ridge, unknown mode.

    Example:
      >>> import jax.numpy as jnp
      >>> fit = fit_features(jnp.eye(2), jnp.eye(2), ridge=1.0, mode="absolute")
      >>> fit.weights.tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    check_ridge(ridge, mode)
    return _fit(features, targets, ridge, mode, stop_trace)
