"""KIP and Label Solve on the toy set with the smallest kernel."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.data import from_arrays, normalise, standardise
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.optimizers import rate_schedule
from dd_jax.kernels.functions import as_kernel
from dd_jax.methods.families.kernels import balanced_batch
from dd_jax.synthetic.solved_labels import solve_labels
from tests.methods import tiny


def run(recipe, toy, steps):
    d = dd.distillation(recipe)
    start = jax.jit(d.init)(jax.random.key(0), toy)
    end, metrics, done = jax.jit(d.run, static_argnums=3)(start, toy, steps, steps)
    assert int(done) == steps
    return d.decode(start), d.decode(end), metrics


@pytest.mark.parametrize("labels", ["fixed", "learned"])
def test_steps_lower_the_loss_and_move_what_they_should(toy, labels):
    # All 64 images in every batch: the loss may only fall.
    start, end, metrics = run(tiny.recipe("kip", ipc=2, labels=labels, learning_rate=0.002), toy, 4)
    assert np.all(np.diff(metrics["loss"]) < 0)
    assert not np.array_equal(start.images, end.images)
    assert np.array_equal(start.labels, end.labels) == (labels == "fixed")
    np.testing.assert_array_equal(start.labels, np.repeat([[0.5, -0.5], [-0.5, 0.5]], 2, axis=0))
    assert np.all(metrics["jitter_steps"] == 0)


def test_label_solve_keeps_the_images_and_lowers_the_loss(toy):
    recipe = tiny.recipe("label_solve", ipc=2)
    assert recipe.steps == 0
    d = dd.distillation(recipe)
    end = d.decode(jax.jit(d.init)(jax.random.key(0), toy))
    solved = recipe.finalise(end, toy, jax.random.key(1))
    np.testing.assert_array_equal(solved.images, end.images)
    # The loss on all 64 images, by the same objective.
    rows = jnp.argsort(toy.labels).reshape(2, 32)
    batch = dd.types.Batch(normalise(recipe.normaliser, toy.images[rows]), toy.labels[rows])
    loss = jax.jit(lambda s: recipe.objective.loss(s, (), batch, jax.random.key(0))[0])
    assert float(loss(solved)) < 0.9 * float(loss(end))


def _rbf(a, b):
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return jnp.exp(-0.002 * jnp.sum((a[:, None] - b[None]) ** 2, -1))


def test_solved_labels_equal_the_formula(toy):
    normaliser = standardise(toy)
    images = normalise(normaliser, toy.images[:6]) + 0.3
    labels = solve_labels(as_kernel(_rbf), images, data=toy, normaliser=normaliser,
                                      chunk=10)
    with jax.enable_x64(True):
        wide = images.astype(jnp.float64)
        real = normalise(normaliser, toy.images).astype(jnp.float64)
        k_ss, k_ts = np.asarray(_rbf(wide, wide)), np.asarray(_rbf(real, wide))
    y = np.eye(2)[np.asarray(toy.labels)] - 0.5
    eps = 1e-6 / 6
    expected = (k_ss + eps * np.eye(6)) @ np.linalg.solve(
        k_ts.T @ k_ts + eps * np.eye(6), k_ts.T @ y)
    assert labels.dtype == jnp.float32
    np.testing.assert_allclose(labels, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["kip", "label_solve"])
@pytest.mark.parametrize("protocol", ["official", "cpu"])
def test_presets_give_whole_recipes(toy, name, protocol):
    recipe = dd.methods.recipe(name, toy, protocol=protocol, ipc=10)
    assert recipe.evaluation.read_out.kernel == ("convnet" if protocol == "official" else "fc3")
    build_network(recipe.evaluation, toy.spec)
    assert recipe.settings == dataclasses.asdict(dd.methods.preset(name, protocol, 10))


def test_the_official_networks_are_trained_for_5000_steps_from_the_full_rate(toy):
    protocol = dd.methods.recipe("kip", toy).evaluation
    assert (protocol.network.width, protocol.network.norm) == (1024, "none")
    assert protocol.plan.epochs == 5000
    schedule = rate_schedule(protocol.optimizer, 5000, 1)
    np.testing.assert_allclose(schedule(0), protocol.optimizer.learning_rate, rtol=1e-6)
    np.testing.assert_allclose(schedule(5000), 0.0, atol=1e-12)


def test_batches_are_balanced_and_no_larger_than_the_set(toy):
    assert balanced_batch(5000, toy) == 64
    three = from_arrays(np.zeros((30, 4, 4, 1), np.uint8), np.arange(30) % 3)
    assert balanced_batch(20, three) == 18
    assert balanced_batch(2, three) == 3


@pytest.mark.parametrize("name", ["kip", "label_solve"])
def test_colour_images_are_whitened_one_by_one(name):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    colour = from_arrays(images, np.arange(8) % 2)
    for normaliser, wanted in ((None, "zca_per_image"), ("none", "none")):
        plan = tiny.plan(name, colour, normaliser=normaliser)
        assert [need.settings["name"] for need in plan.needs.values()] == (
            [wanted] if normaliser is None else [])
