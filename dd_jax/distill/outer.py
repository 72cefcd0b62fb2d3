"""The outer loop as pure functions: `distillation(recipe)` is to a recipe what an optimizer is to a
loss.

Randomness: every key is fold_in(fold_in(base, consumer), step), so a run can stop and go on at any
step; the state holds the base key as plain integers and nothing that advances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import own_dtypes
from dd_jax.data.fetch import fetch, in_model_space, is_stored
from dd_jax.distill.best_so_far import Validation, nothing_yet, validation
from dd_jax.distill.recipe import Recipe, grouped_optimizer
from dd_jax.distill.scalar import require_scalar
from dd_jax.types import PyTree, RealData, SyntheticSet

_INIT, _SAMPLE, _DECODE, _LOSS, _ADVANCE, _VALIDATE = range(6)


class DistillState(NamedTuple):
    """Everything a run carries from step to step; plain arrays.

    Attributes:
      step: [] int32, steps done.
      key: raw key data of the run's base key.
      params: of the parameterization.
      average: sum of the parameters with the weights of their moving average, or () without one.
      optimizer: of the outer optimizer.
      objective: of the objective.
      best: the best set so far, or () where the last one is kept.
    """

    step: jax.Array
    key: jax.Array
    params: PyTree
    average: PyTree
    optimizer: PyTree
    objective: PyTree
    best: PyTree = ()


class Distillation(NamedTuple):
    """The pure functions of one recipe.

    Attributes:
      init: (key, data) -> DistillState.
      sample: (state, data) -> rows that the next step needs, a pytree of int32.
      fetch: (data, rows) -> what is stored at these rows, a pytree of `Batch` (see `fetch`).
      step: (state, batch) -> (state, metrics); normalises the batch itself. It does not validate:
        where the best set is kept, see `validation`.
      run: (state, data, count, length) -> (state, metrics [length], done): `count` <= `length`
        steps in one program, stopping early at a non-finite step, or where patience ends; the
        metric "outside" counts rows that are none of the data.
      decode: (state) -> SyntheticSet; with `best_so_far` the best one that was validated.
      validation: of the recipe's `best_so_far`, which `init` and `run` do by themselves; or None.
        In a vmapped `run` every step pays for a validation.
    """

    init: Callable[..., DistillState]
    sample: Callable[..., PyTree]
    fetch: Callable[..., PyTree]
    step: Callable[..., tuple[DistillState, dict]]
    run: Callable[..., tuple[DistillState, dict, jax.Array]]
    decode: Callable[[DistillState], SyntheticSet]
    validation: Validation | None


def distillation(recipe: Recipe) -> Distillation:
    """Turns a recipe into pure functions; jit, vmap or shard them as you like.

    Args:
      recipe: what to distil.

    Returns:
      A `Distillation`. `jax.vmap(d.step)` over states distils a population at once.

    Example:
      >>> import jax, numpy as np, dd_jax as dd
      >>> rng = np.random.default_rng(0)
      >>> real = dd.data.from_arrays(rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
      ...                            np.arange(8) % 2)
      >>> recipe = dd.methods.recipe("dm", real, depth=1, width=4, batch_size=4, steps=2)
      >>> d = distillation(recipe)
      >>> state = d.init(jax.random.key(0), real)
      >>> state, metrics = jax.jit(d.step)(state, d.fetch(real, d.sample(state, real)))
      >>> int(state.step)
      1
    """
    validate = None
    if recipe.best_so_far is not None:
        validate = validation(
            recipe.best_so_far, recipe.steps, show=partial(_show, recipe),
            see=partial(in_model_space, recipe.normaliser),
            key=lambda state: _key(state._replace(step=0), _VALIDATE))
    return Distillation(
        init=partial(_init, recipe, validate), sample=partial(_sample, recipe), fetch=fetch,
        step=partial(_step, recipe), run=partial(_run, recipe, validate),
        decode=partial(_decode, recipe), validation=validate)


def all_finite(*trees: PyTree) -> jax.Array:
    """[] bool: no floating-point leaf holds a NaN or an infinity."""
    checks = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(trees)
              if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(checks))


def _key(state: DistillState, consumer: int) -> jax.Array:
    base = jax.random.wrap_key_data(state.key)
    return jax.random.fold_in(jax.random.fold_in(base, consumer), state.step)


def rows_outside(rows: PyTree, data: RealData) -> jax.Array:
    """[] int32, how many of a step's rows are not those of a real image."""
    count = data.labels.shape[0]
    asked = [leaf for leaf in jax.tree.leaves(rows, is_leaf=is_stored) if not is_stored(leaf)]
    return sum((jnp.sum((r < 0) | (r >= count), dtype=jnp.int32) for r in asked),
               jnp.zeros((), jnp.int32))


@own_dtypes()
def _init(
    recipe: Recipe, validate: Validation | None, key: jax.Array, data: RealData
) -> DistillState:
    parameterization = recipe.parameterization
    start_key, decode_key, params_key, objective_key = jax.random.split(
        jax.random.fold_in(key, _INIT), 4)
    params = parameterization.init(params_key, recipe.start(data, start_key))
    shown = parameterization.decode(params, decode_key)
    state = DistillState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        params=params,
        average=() if recipe.average is None else jax.tree.map(jnp.zeros_like, params),
        optimizer=grouped_optimizer(recipe, params).init(params),
        objective=recipe.objective.init(objective_key, shown),
    )
    if validate is None:
        return state
    return _validated(validate, state._replace(best=nothing_yet(params)), data)


def _validated(validate: Validation, state: DistillState, data: RealData) -> DistillState:
    return validate.take(state, fetch(data, validate.sample(state, data)))


@own_dtypes()
def _sample(recipe: Recipe, state: DistillState, data: RealData) -> PyTree:
    return recipe.objective.sample(data, state.objective, _key(state, _SAMPLE))


@own_dtypes()
def _step(recipe: Recipe, state: DistillState, batch: PyTree) -> tuple[DistillState, dict]:
    """Gradient, update, and the objective's advance; all of it, or nothing where not finite."""
    objective, parameterization = recipe.objective, recipe.parameterization
    batch = in_model_space(recipe.normaliser, batch)
    decode_key = _key(state, _DECODE)

    def loss(params):
        synthetic = parameterization.decode(params, decode_key)
        return _checked(objective.loss(synthetic, state.objective, batch, _key(state, _LOSS)))

    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    # Rates that wait for a plateau look at the loss.
    move = optax.with_extra_args_support(grouped_optimizer(recipe, state.params)).update
    updates, optimizer = move(grads, state.optimizer, state.params, value=value)
    params = optax.apply_updates(state.params, updates)
    norms = {"grad_norm": optax.tree.norm(grads), "update_norm": optax.tree.norm(updates)}
    finite = all_finite(value, grads, params, norms)  # a norm overflows before its elements do
    # A non-finite step must not destroy what has been computed: it changes nothing but fails.
    params, optimizer = jax.tree.map(lambda new, old: jnp.where(finite, new, old),
                                     (params, optimizer), (state.params, state.optimizer))
    after = jax.lax.cond(
        finite,
        lambda: objective.advance(parameterization.decode(params, decode_key), state.objective,
                                  batch, _key(state, _ADVANCE)),
        lambda: state.objective,
    )
    metrics = {**metrics, "loss": value, **norms, "finite": finite}
    state = DistillState(state.step + finite.astype(jnp.int32), state.key, params,
                         _averaged(recipe, state, params, finite), optimizer, after, state.best)
    return state, {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}


def _checked(result: tuple) -> tuple[jax.Array, dict]:
    value, metrics = result
    require_scalar("the objective's loss", value)
    for name, metric in metrics.items():
        require_scalar(f"the objective's metric {name!r}", metric,
                       fix="reduce it, or give each entry a name of its own")
    return value, metrics


def _averaged(recipe: Recipe, state: DistillState, params: PyTree, finite: jax.Array) -> PyTree:
    if recipe.average is None:
        return state.average
    share = 1 - recipe.average
    return jax.tree.map(lambda a, p: jnp.where(finite, a + share * (p - a), a), state.average,
                        params)


def _advanced(
    recipe: Recipe, validate: Validation | None, state: DistillState, data: RealData
) -> tuple[DistillState, dict]:
    """One step and, where it is due, a validation."""
    rows = _sample(recipe, state, data)
    state, metrics = _step(recipe, state, fetch(data, rows))
    metrics["outside"] = rows_outside(rows, data).astype(jnp.float32)
    if validate is None:
        return state, metrics
    state = jax.lax.cond(validate.due(state), lambda s: _validated(validate, s, data),
                         lambda s: s, state)
    return state, {**metrics, "best_score": state.best.score}


@own_dtypes()
def _run(
    recipe: Recipe, validate: Validation | None, state: DistillState, data: RealData,
    count: jax.Array, length: int,
):
    # A loop of traced length: one compilation, and the same bits, however steps are grouped.
    advanced = partial(_advanced, recipe, validate)
    shapes = jax.eval_shape(lambda s: advanced(s, data)[1], state)
    buffers = jax.tree.map(lambda m: jnp.zeros((length,), m.dtype), shapes)

    def go_on(carry):
        i, state, _, finite = carry
        on = (i < count) & finite
        return on if validate is None else on & ~validate.ended(state)

    def body(carry):
        i, state, buffers, _ = carry
        state, metrics = advanced(state, data)
        buffers = jax.tree.map(lambda b, m: b.at[i].set(m), buffers, metrics)
        return i + 1, state, buffers, metrics["finite"] > 0

    start = (jnp.zeros((), jnp.int32), state, buffers, jnp.asarray(True))
    done, state, buffers, _ = jax.lax.while_loop(go_on, body, start)
    return state, buffers, done


def _show(recipe: Recipe, state: DistillState) -> tuple[PyTree, SyntheticSet]:
    """The last parameters, or their average, and the set that they stand for."""
    params, decay = state.params, recipe.average
    if decay is not None:
        # The weights of t steps sum to 1 - decay^t; before the first there is no average.
        weight = -jnp.expm1(jnp.maximum(state.step, 1).astype(jnp.float32) * math.log(decay))

        def mean(group, total, last):
            if group == "constant":  # to the bit, which a mean of equal numbers is not
                return last
            return jnp.where(state.step > 0, total / weight, last)

        groups = recipe.parameterization.groups(params)
        params = jax.tree.map(mean, groups, state.average, params)
    return params, recipe.parameterization.decode(params, _key(state, _DECODE))


@own_dtypes()
def _decode(recipe: Recipe, state: DistillState) -> SyntheticSet:
    if recipe.best_so_far is None:
        return _show(recipe, state)[1]
    return recipe.parameterization.decode(
        state.best.params, _key(state._replace(step=state.best.step), _DECODE))
