"""WMDD from its teacher to its soft labels, on toy images."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax import methods
from dd_jax.data import denormalise, normalise
from dd_jax.distill import distillation
from dd_jax.methods import wmdd
from dd_jax.types import Objective
from tests.laws import members
from tests.methods import tiny


@pytest.fixture(scope="module")
def complete():
    return tiny.recipe("wmdd", protocol="cpu", ipc=2)


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
    assert complete.labels.kind == "probabilities" and np.ptp(labelled.labels) < 0.9  # soft
    data = members.toy_data()
    real = members.start("real")._replace(images=normalise(complete.normaliser, data.images))
    found = complete.finalise(real, data, jax.random.key(0)).labels
    assert np.mean(np.argmax(found, axis=1) == np.asarray(data.labels)) > 0.9


def test_hard_labels_stay():
    hard = tiny.recipe("wmdd", protocol="cpu", ipc=2, labels="hard")
    assert hard.labels.kind == "one_hot" and hard.evaluation.supervision.output_scale == 1.0
    assert hard.finalise is None


def test_official_settings(monkeypatch):
    config = methods.preset("wmdd", "official", 10)
    assert (config.steps, config.learning_rate, config.statistics_weight) == (2000, 0.25, 10.0)
    assert (config.teacher_rate, config.teacher_epochs, config.area) == (0.025, 50, 0.08)
    monkeypatch.setattr(wmdd, "barycentre_matching", lambda *args, **options: Objective(None))
    plan = methods.plan("wmdd", members.toy_data(), ipc=10)
    recipe = plan.build(dict.fromkeys(plan.needs))
    assert recipe.evaluation.network.name == "resnet18"
