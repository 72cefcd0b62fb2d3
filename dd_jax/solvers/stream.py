"""Sums over more rows than fit into memory, for ridge regression: only F^T F and F^T Y are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import require_whole
from dd_jax.solvers.system import (
    Regulariser,
    System,
    check_matrix,
    factorise,
    solve,
    times,
    wide_dtype,
    widened,
)

Take = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Moments(NamedTuple):
    """Sums over rows in float64: `gram` F^T F [P, P] and `cross` F^T Y [P, K]."""

    gram: jax.Array
    cross: jax.Array


def stream_moments(take: Take, count: int, *, chunk: int = 1024) -> Moments:
    """Sums F^T F and F^T Y over rows 0..count-1, `chunk` rows at a time.

    Args:
      take: rows [b] int32 -> (features [b, P], targets [b, K]); it is traced where float64 exists
        and may return either precision.
      count: N, the number of rows.
      chunk: rows per pass.

    Returns:
      `Moments`, constants for the derivative; their dtype needs `widened()` around further use.

    Raises:
      ConfigError: count or chunk below 1, or results of `take` that do not fit.
    """
    for label, value in (("count", count), ("chunk", chunk)):
        require_whole(label, value)
    chunk = min(chunk, count)
    passes = -(-count // chunk)

    def block(start):
        rows = start + jnp.arange(chunk, dtype=jnp.int32)
        features, targets = jax.lax.stop_gradient(take(jnp.minimum(rows, count - 1)))
        check_matrix("features", features, rows=chunk)
        check_matrix("targets", targets, rows=chunk)
        # The last chunk is filled with repetitions of the last row, which must not count.
        kept = (rows < count)[:, None]
        return (jnp.where(kept, x.astype(wide_dtype()), 0.0) for x in (features, targets))

    def add(total, start):
        f, y = block(start)
        return Moments(total.gram + times(f.T, f), total.cross + times(f.T, y)), None

    with widened():
        starts = jnp.arange(passes, dtype=jnp.int32) * chunk
        first = jax.eval_shape(lambda s: tuple(block(s)), starts[0])
        width, outputs = (x.shape[1] for x in first)
        zeros = Moments(jnp.zeros((width, width), wide_dtype()),
                        jnp.zeros((width, outputs), wide_dtype()))
        return jax.lax.scan(add, zeros, starts)[0]


def solve_moments(moments: Moments, reg: Regulariser, count: int) -> tuple[jax.Array, System]:
    """W = (F^T F + mu I)^{-1} F^T Y in float64, inside `widened()`, with its factorised system."""
    system = factorise(moments.gram, reg, count=count)
    return solve(system, moments.cross), system
