"""KRR-ST as a recipe: its teacher, its start and its optimiser."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from dd_jax.data import normalise
from dd_jax.distill import distillation, prepared
from dd_jax.errors import ConfigError
from dd_jax.methods import krr_st, preset
from tests.laws import members

TINY = dict(steps=3, width=2, depth=1, batch_size=16, pool_size=2, max_age=3, teacher_width=2,
            teacher_steps=2, teacher_batch_size=8, teacher_projector=8)


@pytest.fixture(scope="module")
def complete():
    data = members.toy_data()
    config = preset(krr_st.METHOD, "cpu", 3, **TINY)
    return prepared(krr_st.recipe(config, data), data, jax.random.key(0))


def test_the_start_is_real_images_and_their_representations(complete):
    data = members.toy_data()
    start = jax.jit(complete.initialise)(data, jax.random.key(1))
    real = np.asarray(normalise(complete.normaliser, data.images))
    assert start.images.shape == (6, *members.SHAPE)
    for image in np.asarray(start.images):
        assert np.abs(real - image).max(axis=(1, 2, 3)).min() < 1e-5
    assert start.labels.shape[0] == 6 and np.all(np.isfinite(start.labels))
    assert complete.label_kind == "representations"


def test_a_step_moves_images_and_representations(complete):
    data = members.toy_data()
    d = distillation(complete)

    @jax.jit
    def two(key):
        state = d.init(key, data)
        after, metrics = d.step(state, d.fetch(data, d.sample(state, data)))
        return state, after, metrics

    state, after, metrics = two(jax.random.key(2))
    assert float(metrics["finite"]) == 1 and float(metrics["loss"]) > 0
    for name in ("images", "labels"):
        # Adam's first step has the size of the rate: in pixels, so times 1 / std in model space.
        moved = np.abs(after.params[name] - state.params[name])
        scale = np.asarray(complete.normaliser.std) if name == "images" else 1.0
        np.testing.assert_allclose(np.median(moved * scale), 3e-3, rtol=0.02)


def test_without_its_teacher_it_says_what_to_do():
    data = members.toy_data()
    unprepared = krr_st.recipe(preset(krr_st.METHOD, "cpu", 1, **TINY), data)
    with pytest.raises(ConfigError, match="prepar"):
        distillation(unprepared)
    with pytest.raises(ConfigError, match="teacher"):
        unprepared.initialise(data, jax.random.key(0))


@pytest.mark.parametrize("change,message", [
    ({"teacher": "resnet"}, "resnet18"), ({"ipc": 33}, "66 images of 64"),
    ({"teacher_steps": 0}, "teacher_steps"), ({"pool_decay": -1.0}, "pool_decay"),
])
def test_bad_settings_are_refused(change, message):
    config = dataclasses.replace(krr_st.cpu(1), **change)
    with pytest.raises(ConfigError, match=message):
        krr_st.recipe(config, members.toy_data())


def test_official_settings():
    config = krr_st.official(10)
    assert (config.steps, config.learning_rate, config.batch_size) == (160_000, 1e-4, 1024)
    assert (config.pool_size, config.max_age, config.pool_rate) == (10, 1000, 0.1)
