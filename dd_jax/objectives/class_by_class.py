"""One class in every step, so that the optimizer takes a step for each.

  step t of an iteration: L = l_t(S_t),  t = 0, ..., K - 1,  where the objective is sum_c l_c(S_c)

That is not the sum with another rate: the momentum of an optimizer that holds the whole set moves
every class on while the others have their turn, and adaptive moments decay K times an iteration.

Source: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.data.arrays import one_class
from dd_jax.errors import ConfigError, require_whole
from dd_jax.objectives.combine import wrapped_variants
from dd_jax.objectives.matching import CLASS_WISE
from dd_jax.types import Batch, Objective, PyTree, RealData, SyntheticSet


class TurnState(NamedTuple):
    """State of `class_by_class`.

    Attributes:
      inner: of the objective.
      turn: [] int32, the class of the next step.
    """

    inner: PyTree
    turn: jax.Array


def class_by_class(objective: Objective, classes: int | None = None) -> Objective:
    """The objective's classes in turn; its state moves on after the last one's.

    A step asks for real images of its own class only. Those that train or measure networks, which
    happens after the last class, are drawn then; before it they are the first image, many times.
    A pool that draws by the step's key, as `fresh_pool` does, gives every class its own network.
    To choose representative batches, wrap this (`representative_batches(class_by_class(...))`),
    with as many times the steps between two choices.

    Args:
      objective: a sum over classes whose batch is a `Batch` of [K, B, ...], a dict with such ones
        as "match" or "one_of_each", or a tuple of these; of a set with one class it samples one. In
        `loss` it is given the images and labels of one class and a batch [1, B, ...]: it takes the
        number of parts from the batch. In `advance` it is given the whole set, the last class's
        batch of what is class by class, and all of the rest.
      classes: K, where it is known: the `turns` of the result.

    Returns:
      An `Objective` with `TurnState`; the metric "class" says whose the loss is.

    Raises:
      ConfigError: `classes` below 1; in `loss`, a real batch that is not class by class, or an
        objective that needs all classes together.

    Example:
      >>> from dd_jax import nets, objectives, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> pool = pools.inner_trained_pool(network, uses=5, epochs=0)
      >>> in_turn = class_by_class(objectives.mean_embedding(network, pool))
    """
    if classes is not None:
        require_whole("classes", classes, example=10)
    return objective._replace(
        loss=partial(_loss, objective),
        init=partial(_init, objective),
        sample=partial(_sample, objective),
        advance=partial(_advance, objective),
        embed=None if objective.embed is None else partial(_embed, objective),
        turns=objective.turns if classes is None else classes,
        variants=wrapped_variants((objective,), lambda other: class_by_class(other, classes)),
    )


def _init(objective: Objective, key: jax.Array, synthetic: SyntheticSet) -> TurnState:
    return TurnState(objective.init(key, synthetic), jnp.zeros((), jnp.int32))


def _sample(objective: Objective, data: RealData, state: TurnState, key: jax.Array) -> PyTree:
    own_key, rest_key = jax.random.split(key)
    # What is not used of the one or the other is not computed in a compiled step.
    own = objective.sample(one_class(data, state.turn), state.inner, own_key)
    if not _has_rest(own):
        return own

    def drawn():
        return objective.sample(data, state.inner, rest_key)

    def nothing():
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(drawn))

    last = state.turn == data.spec.num_classes - 1
    return _joined(own, jax.lax.cond(last, drawn, nothing))


def _loss(
    objective: Objective, synthetic: SyntheticSet, state: TurnState, batch: PyTree, key: jax.Array
):
    count = synthetic.labels.shape[-1]

    def part(x):
        return x.reshape(count, -1, *x.shape[1:])[state.turn]

    mine = synthetic._replace(images=part(synthetic.images), labels=part(synthetic.labels))
    value, metrics = objective.loss(mine, state.inner, _of_class(batch, state.turn, count), key)
    return value, {**metrics, "class": state.turn}


def _advance(
    objective: Objective, synthetic: SyntheticSet, state: TurnState, batch: PyTree, key: jax.Array
) -> TurnState:
    count = synthetic.labels.shape[-1]
    inner = jax.lax.cond(
        state.turn == count - 1,
        lambda: objective.advance(synthetic, state.inner, batch, key),
        lambda: state.inner,
    )
    return TurnState(inner, (state.turn + 1) % count)


def _embed(objective: Objective, state: TurnState, images: jax.Array, key: jax.Array) -> jax.Array:
    return objective.embed(state.inner, images, key)


def _has_rest(rows: PyTree) -> bool:
    """Whether there are rows beside those that are class by class."""
    if isinstance(rows, dict):
        return any(name not in CLASS_WISE for name in rows)
    return isinstance(rows, tuple) and any(map(_has_rest, rows))


def _joined(own: PyTree, whole: PyTree) -> PyTree:
    """One class's rows of what is class by class, and all of the rest."""
    if isinstance(own, dict):
        return {name: own[name] if name in CLASS_WISE else whole[name] for name in own}
    if isinstance(own, tuple):
        return tuple(map(_joined, own, whole))
    return own


def _of_class(batch: PyTree, turn: jax.Array, classes: int) -> PyTree:
    """The batch with one class left of what is matched; what trains networks stays whole."""
    if isinstance(batch, Batch):
        if batch.labels.ndim != 2 or batch.labels.shape[0] not in (1, classes):
            raise ConfigError(
                f"class_by_class got a real batch [{', '.join(map(str, batch.labels.shape))}], "
                f"expected [{classes}, n], class by class",
                fix="use an objective that is a sum over classes",
            )
        if batch.labels.shape[0] == 1:
            return batch
        return jax.tree.map(lambda x: x[turn][None], batch)  # of one that samples all classes
    if isinstance(batch, dict):
        return {name: _of_class(part, turn, classes) if name in CLASS_WISE else part
                for name, part in batch.items()}
    return tuple(_of_class(part, turn, classes) for part in batch)
