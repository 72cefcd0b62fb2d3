"""The best set of a run instead of the last one, by an objective that is looked at now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import Objective, PyTree, RealData, SyntheticSet


class Selection(NamedTuple):
    """How the best set of a run is found.

    Attributes:
      objective: whose loss the best set has least of; of a fresh state, with the same real images
        and the same key in every look. Metrics call the least so far "best_score".
      every: steps between two looks; the start and the end are looked at, too.
      patience: steps without a better set after which a run ends; None: it never does.
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


class Looks(NamedTuple):
    """The pure functions of a selection, on a run's state.

    Attributes:
      due: (state) -> [] bool, whether the state is to be looked at.
      sample: (state, data) -> rows of what a look needs, the same in every look.
      take: (state, what is stored at these rows) -> the state, whose `best` it is if it is better.
      ended: (state) -> [] bool, whether the run's patience has.
    """

    due: Callable[[Any], jax.Array]
    sample: Callable[[Any, RealData], PyTree]
    take: Callable[[Any, PyTree], Any]
    ended: Callable[[Any], jax.Array]


def check_selection(selection: Selection) -> None:
    """Refuses what is no selection.

    Raises:
      ConfigError: as said.
    """
    if not isinstance(selection, Selection):
        raise ConfigError(f"selection is a {type(selection).__name__}, expected a Selection",
                          fix="pass selection=distill.Selection(objective, every=40) or None")
    require_whole("selection's every", selection.every, example=40)
    if selection.patience is not None:
        require_whole("selection's patience", selection.patience, example=1000)


def unlooked(params: PyTree) -> Best:
    """What a look at anything is better than."""
    # Not infinity: a state that is not finite is not saved.
    return Best(params, jnp.finfo(jnp.float32).max, jnp.zeros((), jnp.int32))


def looks(
    selection: Selection,
    steps: int,
    *,
    show: Callable[[Any], tuple[PyTree, SyntheticSet]],
    see: Callable[[PyTree], PyTree],
    key: Callable[[Any], jax.Array],
) -> Looks:
    """A selection as functions of a run's state.

    Args:
      selection: what to look at and when.
      steps: of the run.
      show: (state) -> (parameters, the set they stand for).
      see: what is stored -> a batch in model space.
      key: (state) -> the key of looks, the same in every step.

    Returns:
      `Looks`.
    """
    judge = selection.objective

    def due(state) -> jax.Array:
        return (state.step % selection.every == 0) | (state.step == steps)

    def sample(state, data: RealData) -> PyTree:
        return judge.sample(data, judge.init(key(state), show(state)[1]), key(state))

    def take(state, stored: PyTree):
        params, synthetic = show(state)
        fresh = judge.init(key(state), synthetic)
        score, _ = judge.loss(synthetic, fresh, see(stored), key(state))
        found = Best(params, jnp.asarray(score, jnp.float32), state.step)
        # What is not a number is not better.
        best = jax.tree.map(lambda new, old: jnp.where(score < state.best.score, new, old),
                            found, state.best)
        return state._replace(best=best)

    def ended(state) -> jax.Array:
        if selection.patience is None:
            return jnp.asarray(False)
        return state.step - state.best.step >= selection.patience

    return Looks(due, sample, take, ended)
