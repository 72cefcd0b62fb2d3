"""CAFE as a recipe: its settings, its parts, and a few steps of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax import methods
from dd_jax.data import from_arrays
from dd_jax.distill import distillation
from dd_jax.methods import cafe
from dd_jax.objectives.layer_matching import layer_matching
from dd_jax.pools.plateau import plateau_pool
from tests.laws import members
from tests.methods import tiny


def test_some_steps_on_two_classes():
    data = members.toy_data()
    recipe = tiny.recipe("cafe", ipc=2, learning_rate=0.02, augmentation="dsa")
    d = distillation(recipe)

    @jax.jit
    def run(key):
        start = d.init(key, data)
        state, metrics, done = d.run(start, data, 60, 60)
        return start, state, metrics, done

    start, state, metrics, done = run(jax.random.key(0))
    assert int(done) == recipe.steps == 60
    renewals = int(state.objective.renewals)
    assert 20 <= renewals <= 30 and int(state.objective.uses) < 3
    loss = metrics["loss"]
    assert np.all(np.isfinite(loss)) and loss[-10:].mean() < 0.8 * loss[:10].mean()
    np.testing.assert_allclose(metrics["matching"] + metrics["discrimination"], loss, rtol=1e-5)
    shown, before = d.decode(state), d.decode(start)
    assert np.all(np.any(np.asarray(shown.images != before.images), axis=(1, 2, 3)))
    np.testing.assert_array_equal(shown.labels, np.repeat(np.eye(2), 2, axis=0))


def test_the_parts_are_given_the_settings(monkeypatch):
    asked = {}

    def recorded(part):
        def record(*args, **options):
            asked.update(options)
            return part(*args, **options)

        return record

    monkeypatch.setattr(cafe, "layer_matching", recorded(layer_matching))
    monkeypatch.setattr(cafe, "plateau_pool", recorded(plateau_pool))
    rng = np.random.default_rng(0)
    data = from_arrays(rng.integers(0, 256, (20, 28, 28, 1), np.uint8), np.arange(20) % 10)
    recipe = methods.recipe("cafe", data)
    wanted = dict(weights=(0.1, 0.1, 1.0), feature_weight=2.0, discrimination=0.01,
                  measure_size=128, window=10, still=0.04, moved=0.03, max_uses=100, max_epochs=100)
    assert {name: asked[name] for name in wanted} == wanted
    assert asked["batch_size"] == 256
    methods.recipe("cafe", data, batch_size=64)
    assert asked["discrimination"] == 0.04  # a sum over a quarter as many images
    methods.recipe("cafe", data)
    protocol = recipe.evaluation
    assert (protocol.plan.epochs, protocol.views.augmentation) == (601, "none")
    assert (protocol.network.depth, protocol.network.width) == (3, 128)
    siamese = methods.recipe("cafe", data, augmentation="dsa")
    assert (siamese.evaluation.plan.epochs, siamese.evaluation.views.augmentation) == (1001, "dsa")


def test_the_rate_is_halved_three_times():
    recipe = methods.recipe("cafe", members.toy_data(), networks=20, uses=5, momentum=0.0)
    assert recipe.steps == 100
    x = jnp.zeros(1)

    def step(state, _):
        update, state = recipe.optimizer.update(jnp.ones(1), state, x)
        return state, -update[0]

    rates = np.asarray(jax.lax.scan(step, recipe.optimizer.init(x), None, length=100)[1])
    expected = np.repeat([0.1, 0.05, 0.025, 0.0125], [60, 20, 10, 10])
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    config = methods.preset("cafe", "official", 10)
    assert (config.networks, config.learning_rate, config.momentum, config.start) == (
        2000, 0.1, 0.5, "noise")


def test_momentum_is_that_of_the_settings():
    recipe = methods.recipe("cafe", members.toy_data())
    x = jnp.zeros(1)
    state = recipe.optimizer.init(x)
    for size in (0.1, 0.15):
        update, state = recipe.optimizer.update(jnp.ones(1), state, x)
        np.testing.assert_allclose(update, [-size], rtol=1e-6)
