"""WMDD from its teacher to its soft labels, on toy images."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import denormalise, normalise
from dd_jax.distill import distillation
from dd_jax.distill.prepare import prepare_in
from dd_jax.errors import ConfigError
from dd_jax.methods import preset, wmdd
from tests.laws import members

TINY = dict(steps=30, teacher_width=4, teacher_epochs=8, teacher_batch_size=16, teacher_rate=0.05,
            area=0.8, roll=1, mirror_views=True, evaluation_width=4, evaluation_epochs=5)


@pytest.fixture(scope="module")
def recipe():
    config = preset(wmdd.METHOD, "cpu", 2, **TINY)
    return wmdd.recipe(config, members.toy_data())


@pytest.fixture(scope="module")
def complete(recipe, tmp_path_factory):
    # Through a folder, so that the shapes which tracing promises are those of the arrays.
    folder = tmp_path_factory.mktemp("run")
    return prepare_in(folder, recipe, members.toy_data(), jax.random.key(0))


@pytest.fixture(scope="module")
def finished(complete):
    data, d = members.toy_data(), distillation(complete)

    @jax.jit
    def run(key):
        state, metrics, _ = d.run(d.init(key, data), data, complete.steps, length=complete.steps)
        return d.decode(state), metrics

    synthetic, metrics = run(jax.random.key(1))
    return synthetic, metrics, complete.finalise(synthetic, data, jax.random.key(2))


def test_the_steps_lower_every_term_and_stay_in_the_range_of_pixels(complete, finished):
    synthetic, metrics, _ = finished
    assert np.all(np.asarray(metrics["finite"]) == 1)
    for name in ("distance", "statistics", "loss"):
        values = np.asarray(metrics[name])
        assert values[-5:].mean() < 0.8 * values[:5].mean(), name
    pixels = np.asarray(denormalise(complete.normaliser, synthetic.images))
    assert pixels.min() >= -1e-5 and pixels.max() <= 1 + 1e-5


def test_the_teacher_recognises_its_classes_and_labels_the_set(complete, finished):
    synthetic, _, labelled = finished
    np.testing.assert_array_equal(labelled.images, synthetic.images)
    np.testing.assert_allclose(labelled.labels.sum(axis=1), 1, rtol=1e-5)
    assert np.argmax(labelled.labels, axis=1).tolist() == [0, 0, 1, 1]
    assert complete.label_kind == "probabilities" and np.ptp(labelled.labels) < 0.9  # soft
    data = members.toy_data()
    real = members.start("real")._replace(images=normalise(complete.normaliser, data.images))
    found = complete.finalise(real, data, jax.random.key(0)).labels
    assert np.mean(np.argmax(found, axis=1) == np.asarray(data.labels)) > 0.9


def test_hard_labels_stay(recipe):
    data = members.toy_data()
    hard = wmdd.recipe(wmdd.WMDD(**{**recipe.settings, "labels": "hard"}), data)
    assert hard.label_kind == "one_hot" and hard.evaluation.supervision.output_scale == 1.0
    arrays = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype),
                          jax.eval_shape(hard.prepare.compute, data, jax.random.key(0)))
    assert hard.prepare.complete(hard, arrays).finalise is None


def test_without_its_teacher_it_says_what_to_do(recipe):
    with pytest.raises(ConfigError, match="prepar"):
        distillation(recipe)
    with pytest.raises(ConfigError, match="teacher"):
        recipe.objective.loss(None, (), (), None)


@pytest.mark.parametrize("change,message", [
    ({"teacher": "resnet"}, "resnet18"), ({"labels": "none"}, "labels"), ({"ipc": 0}, "ipc"),
    ({"temperature": 0.0}, "temperature"), ({"area": 2.0}, "area"), ({"roll": 9}, "roll"),
    ({"distance": "root"}, "distance"), ({"statistics_weight": -1.0}, "statistics_weight"),
])
def test_bad_settings_are_refused(change, message):
    config = dataclasses.replace(wmdd.cpu(1), **change)
    with pytest.raises(ConfigError, match=message):
        wmdd.recipe(config, members.toy_data())


def test_official_settings():
    config = wmdd.official(10)
    assert (config.steps, config.learning_rate, config.statistics_weight) == (2000, 0.25, 10.0)
    assert (config.teacher_rate, config.teacher_epochs, config.area) == (0.025, 50, 0.08)
    assert wmdd.recipe(config, members.toy_data()).evaluation.network.name == "resnet18"
