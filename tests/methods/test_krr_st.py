"""KRR-ST as a recipe: its teacher, its start and its optimiser."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax import methods
from dd_jax.data import identity, normalise
from dd_jax.distill import distillation
from tests.laws import members
from tests.methods import tiny


@pytest.fixture(scope="module")
def recipes():
    """By whether synthetic images are raw."""
    return {raw: tiny.recipe("krr_st", protocol="cpu", ipc=3, raw=raw) for raw in (True, False)}


@pytest.mark.parametrize("raw", [True, False])
def test_the_start_is_real_images_and_their_representations(recipes, raw):
    """Raw images are pixels in [0, 1]; the teacher sees the normalised ones in any case."""
    data, complete = members.toy_data(), recipes[raw]
    start = jax.jit(complete.start)(data, jax.random.key(1))
    seen = identity(members.SHAPE) if raw else complete.normaliser
    real = np.asarray(normalise(seen, data.images))
    assert start.images.shape == (6, *members.SHAPE)
    rows = [np.abs(real - image).max(axis=(1, 2, 3)) for image in np.asarray(start.images)]
    assert max(row.min() for row in rows) < 1e-5
    assert start.labels.shape[0] == 6 and np.all(np.isfinite(start.labels))
    assert complete.labels.kind == "representations"
    other = jax.jit(recipes[not raw].start)(data, jax.random.key(1))
    np.testing.assert_allclose(start.labels, other.labels, rtol=1e-4, atol=1e-5)


def test_the_first_step_moves_raw_images_and_representations_by_the_rate(recipes):
    data = members.toy_data()
    d = distillation(recipes[True])

    @jax.jit
    def one(key):
        state = d.init(key, data)
        after, metrics = d.step(state, d.fetch(data, d.sample(state, data)))
        return state, after, metrics

    state, after, metrics = one(jax.random.key(2))
    assert float(metrics["finite"]) == 1 and float(metrics["loss"]) > 0
    before = np.asarray(state.params["images"])
    assert before.min() >= 0 and before.max() <= 1
    for name in ("images", "labels"):
        moved = np.abs(after.params[name] - state.params[name])
        np.testing.assert_allclose(np.median(moved), 3e-3, rtol=0.02)
        assert moved.max() < 1.02 * 3e-3


def test_official_settings():
    config = methods.preset("krr_st", "official", 10)
    assert (config.steps, config.learning_rate, config.batch_size) == (160_000, 1e-4, 1024)
    assert config.raw and config.flip is None
    assert (config.pool_size, config.max_age, config.pool_rate) == (10, 1000, 0.1)
