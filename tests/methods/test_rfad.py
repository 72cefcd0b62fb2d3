"""RFAD as a recipe: what a step moves, and the paper's evaluation by data and size."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.data import from_arrays
from dd_jax.distill import outer
from tests.methods import tiny


def test_a_step_moves_every_learned_leaf_at_its_own_rate(toy):
    """AdaBelief's first step is near its rate wherever the gradient is not zero."""
    d = dd.distillation(tiny.recipe("rfad", ipc=2))
    state = jax.jit(d.init)(jax.random.key(0), toy)
    after, metrics = jax.jit(d.step)(state, d.fetch(toy, d.sample(state, toy)))
    assert metrics["finite"] == 1
    rates = {"images": 1e-3, "labels": 1e-3, "preconditioner": 5e-5, "log_temperature": 1e-2}
    assert sorted(state.params) == sorted(rates)
    for name, rate in rates.items():
        moved = np.abs(np.asarray(after.params[name]) - np.asarray(state.params[name])).max()
        assert 0.9 * rate < moved < 1.2 * rate, (name, moved)


def test_squared_error_without_a_matrix_has_two_leaves(toy):
    recipe = tiny.recipe("rfad", ipc=2, loss="squared_error", precondition=False)
    state = jax.eval_shape(dd.distillation(recipe).init, jax.random.key(0), toy)
    assert sorted(state.params) == ["images", "labels"]


def test_the_best_set_of_equal_looks_is_kept(toy):
    recipe = tiny.recipe("rfad", ipc=2, steps=8, validate_every=2, patience=4, learning_rate=30.0)
    d = dd.distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), toy)
    state, metrics, done = jax.jit(d.run, static_argnames="length")(state, toy, 8, length=8)
    # Such a rate is too high; the look after step 6 is the first of more than four after the best.
    assert int(state.best.step) == 0 and int(done) == 6
    assert tiny.recipe("rfad").best_so_far.every == 40
    assert tiny.recipe("rfad", validate_every=None).best_so_far is None
    assert d.validation.sample(state, toy).shape == (64,)  # at most 500 a class
    batch = outer.in_model_space(recipe.normaliser, d.fetch(toy, d.validation.sample(state, toy)))
    start = recipe.parameterization.decode(state.best.params, None)
    values = [recipe.best_so_far.objective.loss(start, (), batch, jax.random.key(seed))[0]
              for seed in range(3)]
    # Of other networks: near, but not equal.
    np.testing.assert_allclose(state.best.score, np.mean(values), rtol=0.2)
    assert min(abs(float(v - state.best.score)) for v in values) > 0


@pytest.mark.parametrize("name,shape,ipc,expected", [
    ("mnist", (28, 28, 1), 1, (1e-3, 8.0, 1e-3)), ("cifar10", (32, 32, 3), 40, (1e-2, 2.0, 0.0)),
    ("cifar100", (32, 32, 3), 50, (1e-1, 2.0, 0.0)), ("mine", (28, 28, 1), 9, (1e-2, 8.0, 1e-3)),
])
def test_evaluation_follows_the_table(name, shape, ipc, expected):
    data = from_arrays(np.zeros((10, *shape), np.uint8), np.arange(10), name=name)
    protocol = dd.methods.plan("rfad", data, ipc=ipc, start="noise", normaliser="none").build(
        {}).evaluation
    by, told = protocol.optimizer, protocol.supervision
    assert (by.learning_rate, told.output_scale, by.pull) == expected
    assert protocol.plan.batch_size == 10 * ipc and told.centre_outputs


@pytest.mark.parametrize("name,kind,per_image", [
    ("svhn", "zca_per_image", True), ("cifar10", "zca", False),
])
def test_colour_sets_are_whitened_without_centring(name, kind, per_image):
    images = np.random.default_rng(0).integers(0, 256, (80, 4, 4, 3), np.uint8)
    data = from_arrays(images, np.arange(80) % 2, name=name)
    normaliser = dd.methods.recipe("rfad", data, protocol="cpu", depth=1).normaliser
    assert (normaliser.kind, normaliser.per_image) == (kind, per_image)
    assert normaliser.pixel_mean is None
