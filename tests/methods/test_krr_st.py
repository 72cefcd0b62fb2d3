"""KRR-ST as a recipe: its teacher, its start and its optimiser."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax import methods
from dd_jax.data import normalise
from dd_jax.distill import distillation
from tests.laws import members
from tests.methods import tiny


@pytest.fixture(scope="module")
def complete():
    return tiny.recipe("krr_st", protocol="cpu", ipc=3)


def test_the_start_is_real_images_and_their_representations(complete):
    data = members.toy_data()
    start = jax.jit(complete.start)(data, jax.random.key(1))
    real = np.asarray(normalise(complete.normaliser, data.images))
    assert start.images.shape == (6, *members.SHAPE)
    for image in np.asarray(start.images):
        assert np.abs(real - image).max(axis=(1, 2, 3)).min() < 1e-5
    assert start.labels.shape[0] == 6 and np.all(np.isfinite(start.labels))
    assert complete.labels.kind == "representations"


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


def test_official_settings():
    config = methods.preset("krr_st", "official", 10)
    assert (config.steps, config.learning_rate, config.batch_size) == (160_000, 1e-4, 1024)
    assert (config.pool_size, config.max_age, config.pool_rate) == (10, 1000, 0.1)
