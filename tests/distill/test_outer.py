"""The outer loop as pure functions: one compile, exact grouping, populations, guards."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.distill import distillation
from dd_jax.errors import ConfigError
from dd_jax.types import Objective

METHODS = ["frepo", "dm"]


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def start(recipe, data, seed=0):
    d = distillation(recipe)
    return d, jax.jit(d.init)(jax.random.key(seed), data)


@pytest.mark.parametrize("name", METHODS)
def test_grouping_of_steps_does_not_change_a_bit(name, tiny_recipe, toy):
    d, state = start(tiny_recipe(name), toy)
    run = jax.jit(d.run, static_argnames="length")
    at_once, metrics, done = run(state, toy, 6, length=8)
    piecewise = state
    losses = []
    for count in (1, 3, 2):
        piecewise, part, part_done = run(piecewise, toy, count, length=8)
        assert int(part_done) == count
        losses.extend(np.asarray(part["loss"])[:count])
    assert int(done) == 6 and int(at_once.step) == 6
    assert same(at_once, piecewise)
    np.testing.assert_array_equal(np.asarray(metrics["loss"])[:6], losses)


@pytest.mark.parametrize("name", METHODS)
def test_state_is_stable_and_holds_no_key(name, tiny_recipe, toy):
    d, state = start(tiny_recipe(name), toy)
    after, _ = jax.jit(d.step)(state, d.fetch(toy, d.sample(state, toy)))
    described = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert described(state) == described(after)
    for leaf in jax.tree.leaves(state):
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def test_the_objective_advances_on_the_set_after_the_step_by_a_key_of_its_own(tiny_recipe, toy):
    def sum_of_squares(synthetic, state, batch, key):
        return jnp.sum(synthetic.images**2), {"drawn": jax.random.uniform(key)}

    def remembered(synthetic, state, batch, key):
        return synthetic.images, jax.random.uniform(key)

    remembers = Objective(sum_of_squares, advance=remembered,
                          init=lambda key, synthetic: remembered(synthetic, None, None, key))
    d, state = start(dataclasses.replace(tiny_recipe("dm"), objective=remembers), toy)
    after, metrics = jax.jit(d.step)(state, d.fetch(toy, d.sample(state, toy)))
    images, drawn = after.objective
    assert not same(state.objective[0], images) and same(images, d.decode(after).images)
    assert len({float(drawn), float(metrics["drawn"]), float(state.objective[1])}) == 3


@pytest.mark.parametrize("name", METHODS)
def test_step_compiles_once_whatever_the_values(name, tiny_recipe, toy):
    recipe = tiny_recipe(name)
    d = distillation(recipe)
    traces = []

    @jax.jit
    def step(state, batch):
        traces.append(1)
        return d.step(state, batch)

    for seed in range(5):
        state = jax.jit(d.init)(jax.random.key(seed), toy)
        state = state._replace(step=jnp.int32(seed))
        step(state, d.fetch(toy, d.sample(state, toy)))
    assert len(traces) == 1


def test_a_run_compiles_once_for_every_count(tiny_recipe, toy):
    d, state = start(tiny_recipe("dm"), toy)
    traces = []

    def traced(*args, **kwargs):
        traces.append(1)
        return d.run(*args, **kwargs)

    run = jax.jit(traced, static_argnames="length")
    for count in (1, 2, 4):
        state, _, _ = run(state, toy, count, length=4)
    assert len(traces) == 1


def test_a_population_equals_separate_runs(tiny_recipe, toy):
    d, _ = start(tiny_recipe("frepo"), toy)

    def one(seed):
        state, metrics, _ = d.run(d.init(jax.random.key(seed), toy), toy, 3, length=3)
        return d.decode(state).images, metrics["loss"][-1]

    images, losses = jax.jit(jax.vmap(one))(jnp.arange(3))
    assert len(set(np.asarray(losses).tolist())) == 3
    for seed in range(3):
        alone, loss = jax.jit(one)(seed)
        np.testing.assert_allclose(losses[seed], loss, rtol=1e-3)
        np.testing.assert_allclose(images[seed], alone, atol=5e-3)


def test_fixed_labels_never_move_and_learned_ones_do(tiny_recipe, toy):
    for labels, moves in (("fixed", False), ("learned", True)):
        d, state = start(tiny_recipe("frepo", labels=labels), toy)
        run = jax.jit(d.run, static_argnames="length")
        after, _, _ = run(state, toy, 4, length=4)
        assert not same(state.params["images"], after.params["images"])
        assert same(state.params["labels"], after.params["labels"]) is not moves


def test_optimizers_by_group(tiny_recipe, toy):
    by_group = {"images": optax.sgd(0.1), "labels": optax.sgd(0.0)}
    recipe = dataclasses.replace(tiny_recipe("frepo"), optimizer=by_group)
    d, state = start(recipe, toy)
    after, _ = jax.jit(d.step)(state, d.fetch(toy, d.sample(state, toy)))
    assert same(state.params["labels"], after.params["labels"])
    assert not same(state.params["images"], after.params["images"])
    incomplete = dataclasses.replace(recipe, optimizer={"images": optax.sgd(0.1)})
    with pytest.raises(ConfigError, match="labels"):
        start(incomplete, toy)


def test_a_non_finite_step_changes_nothing_and_ends_the_run(tiny_recipe, toy):
    recipe = tiny_recipe("dm")
    loss = recipe.objective.loss

    def exploding(synthetic, state, batch, key):
        value, metrics = loss(synthetic, state, batch, key)
        # Not the value but the gradient is infinite, from the third step on by its own growth.
        return value * jnp.exp(1e3 * jnp.max(jnp.abs(synthetic.images)) ** 8), metrics

    broken = dataclasses.replace(
        recipe, objective=recipe.objective._replace(loss=exploding), optimizer=optax.sgd(1e30)
    )
    d, state = start(broken, toy)
    after, metrics, done = jax.jit(d.run, static_argnames="length")(state, toy, 6, length=6)
    assert int(done) < 6
    assert float(metrics["finite"][int(done) - 1]) == 0.0
    assert int(after.step) == int(done) - 1
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(after.params))


def test_a_non_finite_step_leaves_the_pool_alone(tiny_recipe, toy):
    recipe = tiny_recipe("frepo")
    loss = recipe.objective.loss
    broken = dataclasses.replace(recipe, objective=recipe.objective._replace(
        loss=lambda *args: (loss(*args)[0] * jnp.nan, {})))
    d, state = start(broken, toy)
    after, metrics = jax.jit(d.step)(state, d.fetch(toy, d.sample(state, toy)))
    assert float(metrics["finite"]) == 0.0 and same(state, after)
