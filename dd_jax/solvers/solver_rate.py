"""A learning rate that follows how the runs of an inner solver went.

Every `WATCH_EVERY`-th step one run is watched. Every `ADAPT_EVERY` steps the rate is lowered by a
tenth if at least 29% of the watched runs ended above their start, else raised by a twentieth if at
least 70% of them fell in every step.

Source: Loo et al., Dataset Distillation with Convexified Implicit Gradients, ICML 2023, where every
run is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.solvers.quadratic import falls

WATCH_EVERY = 10
ADAPT_EVERY = 50


class SolverRate(NamedTuple):
    """A rate and what was seen since it was last changed.

    Attributes:
      rate: [] float32.
      step: [] int32, steps done.
      above: [] int32, watched runs that ended above their start.
      monotone: [] int32, watched runs that fell in every step.
    """

    rate: jax.Array
    step: jax.Array
    above: jax.Array
    monotone: jax.Array


def solver_rate(rate: jax.Array | float) -> SolverRate:
    """A rate of which nothing has been seen yet."""
    zero = jnp.zeros((), jnp.int32)
    return SolverRate(jnp.asarray(rate, jnp.float32), zero, zero, zero)


def followed(state: SolverRate, run: Callable[[jax.Array], jax.Array]) -> SolverRate:
    """One step further: watches a run if it is time to, and changes the rate if it is time to.

    Args:
      state: so far.
      run: rate [] -> monitor [steps] of a run, see `solvers.quadratic`; called every tenth step.

    Returns:
      The next state.

    Example:
      >>> import jax.numpy as jnp
      >>> state = solver_rate(1.0)
      >>> for _ in range(50):
      ...     state = followed(state, lambda rate: jnp.array([1.0]))
      >>> round(float(state.rate), 3)
      0.9
    """
    def look():
        monitor = run(state.rate)
        return (~(monitor[-1] <= 0)).astype(jnp.int32), falls(monitor).astype(jnp.int32)

    zero = jnp.zeros((), jnp.int32)
    seen = jax.lax.cond(state.step % WATCH_EVERY == 0, look, lambda: (zero, zero))
    above, monotone, step = state.above + seen[0], state.monotone + seen[1], state.step + 1
    due = step % ADAPT_EVERY == 0
    runs = ADAPT_EVERY // WATCH_EVERY
    factor = jnp.where(above >= 0.29 * runs, 0.9, jnp.where(monotone >= 0.7 * runs, 1.05, 1.0))
    return SolverRate(
        rate=state.rate * jnp.where(due, factor, 1.0).astype(state.rate.dtype),
        step=step,
        above=jnp.where(due, 0, above),
        monotone=jnp.where(due, 0, monotone),
    )
