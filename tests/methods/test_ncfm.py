"""NCFM as a recipe: its bank, the order of its steps, its plateau and its settings."""

from __future__ import annotations

import jax
import numpy as np

from dd_jax import methods
from dd_jax.distill import distillation
from tests.laws import members
from tests.methods import tiny


def steps(recipe, count):
    """The state before and after each of some steps, and metrics [count]."""
    data = members.toy_data()
    d = distillation(recipe)

    def step(state, _):
        after, metrics = d.step(state, d.fetch(data, d.sample(state, data)))
        return after, (after, metrics)

    def run(key):
        state = d.init(key, data)
        return state, jax.lax.scan(step, state, None, length=count)[1]

    start, (after, metrics) = jax.jit(run)(jax.random.key(1))
    return start, after, jax.tree.map(np.asarray, metrics)


def plateaus(optimizer):
    return [x for x in jax.tree.leaves(optimizer, is_leaf=lambda x: hasattr(x, "plateau_count"))
            if hasattr(x, "plateau_count")]


def in_pixels(recipe, images):
    return np.asarray(images * recipe.normaliser.std + recipe.normaliser.mean)


def test_classes_in_turn_first_matched_then_calibrated():
    recipe = tiny.recipe("ncfm", patience=1)
    assert recipe.steps == 3 * 4
    start, after, metrics = steps(recipe, 8)
    assert metrics["part"].tolist() == [0, 0, 1, 1] * 2
    assert np.all(metrics["finite"] == 1) and np.all(metrics["loss"] > 0)
    # One pair serves the matching of all classes, and moves on after the last.
    shares = np.asarray(after.objective.parts[0].inner.pool.share)
    before = float(start.objective.parts[0].inner.pool.share)
    assert shares[0] == before and shares[1] != before
    assert np.all(shares[1:5] == shares[1]) and shares[5] != shares[1]
    # The plateau looks at the mean loss of an iteration.
    plateau, = plateaus(after.optimizer)
    best = np.asarray(plateau.best_value)
    means = metrics["loss"].reshape(2, 4).mean(1)
    np.testing.assert_allclose(best[[3, 7]], [means[0], means.min()], rtol=1e-5)
    assert np.all(np.isinf(best[:3]))
    # Adam's moments are those of the whole set: each step moves every class from the second on.
    images = np.asarray(after.params["images"])
    assert images.shape[1:] == (2, *members.SHAPE)
    moved = np.any(np.diff(images, axis=0) != 0, axis=(2, 3, 4))
    assert np.all(moved[1:])
    shown = in_pixels(recipe, after.params["images"])
    assert shown.min() >= -1e-5 and shown.max() <= 1 + 1e-5


def test_one_step_for_all_classes_lowers_the_loss_against_a_learned_sampler():
    recipe = tiny.recipe("ncfm", protocol="cpu", sampler="learned", frequencies=32, width=8,
                         bank=1, bank_steps=20)
    assert recipe.steps == 3
    start, after, metrics = steps(recipe, 40)
    assert np.all(metrics["finite"] == 1)
    np.testing.assert_allclose(metrics["loss"], metrics["loss/0"] + metrics["loss/1"], rtol=1e-4)
    assert metrics["loss"][-10:].mean() < 0.95 * metrics["loss"][:10].mean()
    first, last = (x.objective[0].probe["dense0"]["kernel"] for x in (start, after))
    assert np.all(np.any(np.diff(np.concatenate([first[None], last]), axis=0) != 0, axis=(1, 2)))


def test_without_calibration_it_is_one_term():
    assert tiny.recipe("ncfm", calibration=0.0).steps == 3 * 2


def test_official_settings():
    config = methods.preset("ncfm", "official", 10)
    assert (config.iterations, config.learning_rate, config.weight_decay) == (20_000, 1e-3, 5e-4)
    assert (config.frequencies, config.scale, config.calibration) == (None, 300.0, 1.0)
    assert (config.bank, config.bank_steps, config.batch_size) == (20, None, 1024)
