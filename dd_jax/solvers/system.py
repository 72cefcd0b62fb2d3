"""The regularised symmetric system A = G + mu I that every ridge solver factorises once.

G is a Gram matrix of either form: K [n, n] of the dual, F^T F [P, P] of the primal. It is held,
factorised and solved in float64 wherever the backend has it: with mu = 1e-6 tr(K)/n the condition
number reaches n / 1e-6, beyond float32. TPUs solve in float32 at the highest precision with one
step of iterative refinement.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown

MODES = ("trace_mean", "trace_sum", "absolute")
_LADDER_STEPS = 8


class Regulariser(NamedTuple):
    """What `ridge`, `mode` and `stop_trace` of a fit say; hashable, so a static argument."""

    ridge: float
    mode: str = "trace_mean"
    stop_trace: bool = False


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


class System(NamedTuple):
    """A factorised system: `gram` [m, m], lower `factor` [m, m], `ridge` [], `steps` [] int32."""

    gram: jax.Array
    factor: jax.Array
    ridge: jax.Array
    steps: jax.Array


def _wide() -> bool:
    return jax.default_backend() != "tpu"


def widened():
    """Context in which float64 exists where the backend has it, whatever the global setting."""
    return jax.enable_x64(_wide() or jax.config.jax_enable_x64)


def wide_dtype():
    """The dtype of grams, factors and solves: float64, or float32 on a TPU."""
    return jnp.float64 if _wide() else jnp.float32


def times(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b of matrices, without the reduced precision that accelerators use by default.

    Not a matmul, which names its result's dtype: where a `vmap` reaches the traced product from
    outside of the float64 block, that name is cut to float32. A dot takes that of its operands.
    """
    return jax.lax.dot_general(a, b, (((1,), (0,)), ((), ())), precision="highest")


def _ridge_value(gram: jax.Array, reg: Regulariser, count: int) -> jax.Array:
    trace = jnp.trace(gram)
    if reg.mode == "absolute":
        return jnp.asarray(reg.ridge, gram.dtype)
    scaled = reg.ridge * (trace / count if reg.mode == "trace_mean" else trace)
    # An all-zero set has trace 0; a ridge of exactly 0 would leave nothing to factorise.
    return scaled + jnp.finfo(jnp.float32).tiny


def factorise(
    gram: jax.Array, reg: Regulariser, *, count: int | None = None, source=None
) -> System:
    """Cholesky factor of gram + mu I, raising mu tenfold until it is finite.

    Args:
      gram: G, [m, m] of dtype `wide_dtype()`, inside `widened()`; symmetrised here.
      reg: the regulariser.
      count: n, the rows that "trace_mean" divides by; None for m.
      source: the dtype that G was computed in, whose rounding decides the first raise; None for
        its own.

    Returns:
      A `System`; not finite only where `gram` is not.
    """
    gram = 0.5 * (gram + gram.T)
    ridge = _ridge_value(gram, reg, count or gram.shape[0])
    eye = jnp.eye(gram.shape[0], dtype=gram.dtype)

    def attempt(value):
        return jnp.linalg.cholesky(gram + value * eye)

    def failed(carry):
        factor, _, steps = carry
        return (~jnp.all(jnp.isfinite(factor))) & (steps < _LADDER_STEPS)

    # The first raise is at least rounding error of the diagonal, and never exactly zero.
    floor = jnp.finfo(source or gram.dtype).eps * jnp.trace(gram) / gram.shape[0]
    floor = jnp.maximum(floor, jnp.finfo(jnp.float32).tiny)

    def raise_ridge(carry):
        _, value, steps = carry
        value = jnp.maximum(10 * value, floor)
        return attempt(value), value, steps + 1

    start = (attempt(ridge), ridge, jnp.zeros((), jnp.int32))
    factor, ridge, steps = jax.lax.while_loop(failed, raise_ridge, start)
    return System(gram, factor, ridge, steps)


def solve(system: System, rhs: jax.Array) -> jax.Array:
    """A^{-1} rhs by two triangular solves; in float32 with one step of refinement."""
    out = jax.scipy.linalg.cho_solve((system.factor, True), rhs)
    if system.gram.dtype == jnp.float32:
        residual = rhs - times(system.gram, out) - system.ridge * out
        out = out + jax.scipy.linalg.cho_solve((system.factor, True), residual)
    return out


def gram_cotangent(b: jax.Array, alpha: jax.Array, reg: Regulariser, count: int) -> jax.Array:
    """The cotangent of G for alpha = A^{-1} R, where b = A^{-1} (cotangent of alpha).

    A_ = -b alpha^T, and mu = scale tr(G) adds scale tr(A_) I. Not symmetrised.
    """
    out = -times(b, alpha.T)
    if reg.mode != "absolute" and not reg.stop_trace:
        scale = reg.ridge / count if reg.mode == "trace_mean" else reg.ridge
        out = out - scale * jnp.sum(b * alpha) * jnp.eye(out.shape[0], dtype=out.dtype)
    return out


def describe(system: System, dtype) -> RidgeInfo:
    """How the factorisation went, in the caller's dtype."""
    diagonal = jnp.diagonal(system.factor)
    condition = (jnp.max(diagonal) / jnp.min(diagonal)) ** 2
    return RidgeInfo(system.ridge.astype(dtype), system.steps, condition.astype(dtype))


def check_ridge(reg: float, mode: str) -> None:
    """Checks a regulariser before anything compiles.

    Raises:
      ConfigError: if the mode is unknown, or the ridge negative or not finite.
    """
    if mode not in MODES:
        raise unknown("ridge mode", mode, MODES)
    if not (0.0 <= reg < float("inf")):
        raise ConfigError(f"ridge is {reg!r}, expected a finite number of at least 0",
                          fix="pass for example ridge=1e-6")


def check_matrix(what: str, array: jax.Array, *, rows: int | None = None,
                 square: bool = False) -> None:
    """Checks that an array is a non-empty floating-point matrix of the expected size.

    Args:
      what: its name in the message.
      array: [n, m].
      rows: n that it has to have; None for any.
      square: whether m has to be n.

    Raises:
      ConfigError: if it is not.
    """
    shape = tuple(array.shape)
    expected = (f"[{'n' if rows is None else rows}, "
                f"{('n' if rows is None else rows) if square else 'm'}]")
    fits = len(shape) == 2 and min(shape, default=0) > 0
    fits = fits and (rows is None or shape[0] == rows) and (not square or shape[0] == shape[1])
    if not fits:
        raise ConfigError(f"{what} has shape {shape}, expected {expected} with at least one entry",
                          fix="give one row for each image; use jax.vmap for a stack of problems")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ConfigError(f"{what} has dtype {array.dtype}, expected floating point",
                          fix="cast it to float32")
