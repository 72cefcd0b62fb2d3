"""The best set of a run instead of the last one, judged now and then by an objective."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.distill.scalar import require_scalar
from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import Objective, PyTree, RealData, SyntheticSet


class BestSoFar(NamedTuple):
    """How the best set of a run is found.

    Attributes:
      objective: whose loss the best set has least of; of a fresh state, with the same real images
        and the same keys in every validation. Metrics call the least so far "best_score".
      every: steps between two validations; the start and the end are validated, too.
      patience: a run ends at the first validation more than so many steps after that of the best
        set; None: it never does.
    """

    objective: Objective
    every: int
    patience: int | None = None


class Best(NamedTuple):
    """The best set so far.

    Attributes:
      params: of the parameterization.
      score: [] float32, its loss.
      step: [] int32, steps done when it was found.
    """

    params: PyTree
    score: jax.Array
    step: jax.Array


class Validation(NamedTuple):
    """The pure functions of a `BestSoFar`, on a run's state.

    Attributes:
      due: (state) -> [] bool, whether the state is to be validated.
      sample: (state, data) -> rows of what a validation needs, the same every time.
      take: (state, what is stored at these rows) -> the state, whose `best` it is if it is better.
      ended: (state) -> [] bool, whether the run's patience has; asked after a validation.
    """

    due: Callable[[Any], jax.Array]
    sample: Callable[[Any, RealData], PyTree]
    take: Callable[[Any, PyTree], Any]
    ended: Callable[[Any], jax.Array]


def check_best_so_far(best: BestSoFar) -> None:
    """Raises ConfigError if it is no `BestSoFar` or its numbers cannot be."""
    if not isinstance(best, BestSoFar):
        raise ConfigError(f"best_so_far is a {type(best).__name__}, expected a BestSoFar",
                          fix="pass best_so_far=distill.BestSoFar(objective, every=40) or None")
    require_whole("best_so_far's every", best.every, example=40)
    if best.patience is not None:
        require_whole("best_so_far's patience", best.patience, example=1000)


# Not infinity: a state that is not finite is not saved.
_WORST = jnp.finfo(jnp.float32).max


def nothing_yet(params: PyTree) -> Best:
    """What any validated set is better than."""
    return Best(params, jnp.asarray(_WORST, jnp.float32), jnp.zeros((), jnp.int32))


def best_notes(state: Any, steps: int) -> dict[str, Any]:
    """What a finished run's set tells of its best step and the score there.

    Args:
      state: the last one.
      steps: that the run was to take; told is after how many it ended, where these were fewer.
    """
    step, score = int(state.best.step), float(state.best.score)
    if score == _WORST:
        warnings.warn("no validation's loss was finite: the set is the one that the run started "
                      "from", stacklevel=3)
        score = None
    ended = {} if int(state.step) == steps else {"ended_after": int(state.step)}
    return {"best_step": step, "best_score": score, **ended}


def validation(
    best_so_far: BestSoFar,
    steps: int,
    *,
    show: Callable[[Any], tuple[PyTree, SyntheticSet]],
    see: Callable[[PyTree], PyTree],
    key: Callable[[Any], jax.Array],
) -> Validation:
    """A `BestSoFar` as functions of a run's state.

    Args:
      best_so_far: what to judge by and when.
      steps: of the run.
      show: (state) -> (parameters, the set they stand for).
      see: what is stored -> a batch in model space.
      key: (state) -> the key of validations, the same in every step.
    """
    judge = best_so_far.objective

    def keys(state) -> jax.Array:
        return jax.random.split(key(state), 3)

    def due(state) -> jax.Array:
        return (state.step % best_so_far.every == 0) | (state.step == steps)

    def sample(state, data: RealData) -> PyTree:
        return judge.sample(data, judge.init(keys(state)[0], show(state)[1]), keys(state)[1])

    def take(state, stored: PyTree):
        params, synthetic = show(state)
        fresh = judge.init(keys(state)[0], synthetic)
        score, _ = judge.loss(synthetic, fresh, see(stored), keys(state)[2])
        require_scalar("best_so_far's loss", score)
        found = Best(params, jnp.asarray(score, jnp.float32), state.step)
        better = jnp.isfinite(score) & (score < state.best.score)
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, state.best)
        return state._replace(best=best)

    def ended(state) -> jax.Array:
        if best_so_far.patience is None:
            return jnp.asarray(False)
        validated = state.step % best_so_far.every == 0
        return validated & (state.step - state.best.step > best_so_far.patience)

    return Validation(due, sample, take, ended)
