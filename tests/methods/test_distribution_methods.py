"""M3D, DataDAM and IDM as recipes: presets, starts, ranges, turns, weights and settings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import methods, nets, objectives
from dd_jax.distill import distillation
from dd_jax.methods import datadam
from dd_jax.types import Outputs
from tests.laws import members
from tests.methods import tiny
from tests.objectives import reference_distributions as reference

NAMES = ("m3d", "datadam", "idm")


def played(name, steps, **changes):
    """(recipe, distillation, first state, last state, losses) of a short run."""
    recipe, data = tiny.recipe(name, **changes), members.toy_data()
    d = distillation(recipe)
    first = jax.jit(d.init)(jax.random.key(0), data)
    last, metrics, done = jax.jit(d.run, static_argnames="length")(first, data, steps, length=steps)
    assert int(done) == steps and bool(np.all(metrics["finite"]))
    return recipe, d, first, last, np.asarray(metrics["loss"])


def pixels_of(recipe, state):
    normaliser = recipe.normaliser
    return np.asarray(state.params["images"]) * np.asarray(normaliser.std) + np.asarray(
        normaliser.mean)


# Presets, by the published tables.


def test_the_official_settings_of_m3d():
    for ipc in (1, 10, 20):
        config = methods.preset("m3d", "official", ipc)
        assert (config.learning_rate, config.momentum) == (ipc, 0.5)
        assert (config.factor, config.uses, config.batch_size, config.most) == (2, 5, 128, 200)
        assert (config.iterations, config.in_turn, config.kernel) == (10_000, True, "gaussian")
        assert (config.width, config.matching, config.mix) == (128, "idc_matching", 0.5)
    recipe = tiny.recipe("m3d", iterations=10_000)
    assert recipe.steps == 10_000 * members.CLASSES
    assert recipe.evaluation.plan.batch_size == 64
    assert recipe.evaluation.optimizer.schedule == "milestones"
    assert config.evaluation_epochs == 1000


def test_the_official_settings_of_datadam_and_those_of_its_paper():
    for ipc, rate in ((1, 1.0), (50, 1.0), (100, 10.0)):
        code = methods.preset("datadam", "official", ipc)
        table = methods.preset("datadam", "paper", ipc)
        assert (code.power, code.norm, code.evaluation_norm, code.steps) == (
            1, "batch", "batch", 20_000)
        assert (table.power, table.norm, table.evaluation_norm, table.steps) == (
            4, "instance", "instance", 8000)
        for config in (code, table):
            assert (config.learning_rate, config.momentum, config.batch_size) == (rate, 0.5, 64)
            assert (config.feature_weight, config.scale, config.width) == (0.01, 100.0, 128)
            assert (config.start, config.normaliser) == ("real", None)  # by data
    cpu = methods.preset("datadam", "cpu", 1)
    assert (cpu.power, cpu.norm, cpu.width) == (4, "instance", 32)
    protocol = tiny.recipe("datadam", evaluation_epochs=code.evaluation_epochs).evaluation
    assert (protocol.plan.epochs, protocol.plan.batch_size) == (1801, 64)
    assert protocol.optimizer.schedule == "step_drop"
    assert (protocol.network.norm, protocol.views.augmentation) == ("batch", "dsa")


@pytest.mark.parametrize(("ipc", "weight", "batch", "every", "forget"), [
    (1, 0.5, 5000, 5, 100), (10, 0.5, 256, 30, 100), (50, 0.1, 256, 30, 500)])
def test_the_official_settings_of_idm(ipc, weight, batch, every, forget):
    config = methods.preset("idm", "official", ipc)
    assert (config.label_weight, config.batch_size) == (weight, batch)
    assert (config.queue_every, config.forget) == (every, forget)
    assert (config.queue_start, config.queue_capacity) == (3, 100)
    assert (config.queue_trained, config.queue_steps, config.queue_batch_size) == (2, 10, 256)
    assert (config.learning_rate, config.momentum, config.in_turn) == (0.2, 0.5, True)
    assert (config.iterations, config.factor, config.width) == (20_000, 2, 128)
    protocol = tiny.recipe("idm", evaluation_epochs=config.evaluation_epochs).evaluation
    assert (protocol.plan.epochs, protocol.plan.batch_size) == (1001, 256)
    assert protocol.optimizer.schedule == "step_drop"


@pytest.mark.parametrize("name", NAMES)
def test_small_machines_get_narrow_networks_and_one_step_for_all_classes(name):
    for ipc in (1, 10):
        config = methods.preset(name, "cpu", ipc)
        assert config.width == config.evaluation_width == 32 and config.ipc == ipc
        assert not getattr(config, "in_turn", False)


# What the settings do.


def asked(monkeypatch, module, name, **changes):
    """(network, options) that the recipe gives to `distribution_matching`."""
    found = {}

    def recorded(network, pool, discrepancy, **options):
        found.update(network=network, discrepancy=discrepancy, options=options)
        return objectives.distribution_matching(network, pool, discrepancy, **options)

    monkeypatch.setattr(module, "distribution_matching", recorded)
    tiny.recipe(name, **changes)
    return found


@pytest.mark.parametrize("protocol", ["official", "paper"])
def test_datadam_compares_by_its_power_norm_and_scale(protocol, monkeypatch):
    found = asked(monkeypatch, datadam, "datadam", protocol=protocol)
    assert found["options"]["scale"] == 100.0 and found["options"]["batch_size"] == 4
    variables = jax.eval_shape(found["network"].init, jax.random.key(0))
    assert ("batch_stats" in variables) is (protocol == "official")
    rng = np.random.default_rng(0)
    maps = [np.abs(rng.normal(size=(1, 2, 2, 3))) for _ in range(4)]
    power = {"official": 1, "paper": 4}[protocol]
    sides = [(pair, pair[-1].reshape(1, -1)) for pair in (maps[:2], maps[2:])]
    collected = [found["discrepancy"].collect(Outputs(np.zeros((1, 2)), features, tuple(taps)))
                 for taps, features in sides]
    value = found["discrepancy"].compare(
        *jax.tree.map(lambda x: x.mean(axis=0), tuple(collected)), None)
    expected = reference.attention_distance(*sides, power=power, weight=0.01)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "shrunk"), [
    ("m3d", lambda x: x[:, ::2, ::2]),
    ("idm", lambda x: x.reshape(-1, 4, 2, 4, 2, 1).mean(axis=(2, 4)))], ids=["m3d", "idm"])
def test_stored_images_start_as_four_real_ones_shrunk(name, shrunk):
    recipe, data = tiny.recipe(name, ipc=2), members.toy_data()
    start = jax.jit(recipe.start)(data, jax.random.key(3))
    np.testing.assert_array_equal(start.labels, np.repeat(np.eye(2), 2, axis=0))
    stored = np.asarray(start.images) * np.asarray(recipe.normaliser.std) + np.asarray(
        recipe.normaliser.mean)
    small, used = shrunk(np.asarray(data.images, np.float64) / 255.0), []
    for i, image in enumerate(stored):
        for patch in (image[:4, :4], image[:4, 4:], image[4:, :4], image[4:, 4:]):
            errors = np.abs(small - patch).max(axis=(1, 2, 3))
            used.append(int(errors.argmin()))
            assert errors.min() < 1e-5 and int(data.labels[used[-1]]) == i // 2
    assert len(set(used)) == len(used) == 16


def test_m3d_stays_black_to_white_and_changes_its_network_every_few_iterations():
    steps = 7 * members.CLASSES
    recipe, d, first, last, _ = played("m3d", steps, learning_rate=300.0)
    pixels = pixels_of(recipe, last)
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    assert ((pixels < 1e-5) | (pixels > 1 - 1e-5)).mean() > 0.02
    inner = last.objective.inner
    assert (int(inner.pool.renewals), int(inner.pool.uses)) == (3, 1)  # 7 iterations, 2 uses each
    assert d.decode(last).images.shape == (members.CLASSES * 4, *members.SHAPE)


def test_the_label_weight_of_idm_multiplies_percent_of_training_accuracy():
    data = members.toy_data()
    quiet = dict(in_turn=False, augmentation="none", queue_start=2)
    recipes = {w: tiny.recipe("idm", label_weight=w, **quiet) for w in (0.0, 0.5)}
    d = distillation(recipes[0.5])
    state = jax.jit(d.init)(jax.random.key(0), data)
    shown = d.decode(state)
    pool = state.objective.pool
    batch = d.fetch(data, d.sample(state, data))
    batch = jax.tree.map(lambda x: x.astype(jnp.float32) if x.ndim > 2 else x, batch)

    @jax.jit
    def losses(correct, seen):
        counts = pool._replace(correct=jnp.full((2,), correct), seen=jnp.full((2,), seen))
        of = state.objective._replace(pool=counts)
        return [r.objective.loss(shown, of, batch, jax.random.key(1))[0] for r in recipes.values()]

    network = nets.convnet(members.SPEC, depth=1, width=2)
    variables = jax.tree.map(lambda x: x[pool.current], pool.variables)
    logits = np.asarray(jax.jit(network.apply)(variables, shown.images).logits)
    parts = [slice(4 * c, 4 * c + 4) for c in range(members.CLASSES)]
    entropy = sum(reference.cross_entropy(logits[p], shown.labels[p]) for p in parts)
    for correct, seen, percent in ((6, 8, 75.0), (0, 0, 0.0)):
        without, with_labels = losses(jnp.int32(correct), jnp.int32(seen))
        np.testing.assert_allclose(with_labels - without, 0.5 * percent * entropy,
                                   rtol=1e-4, atol=1e-3)


# All real images of a class in every step, and one network.
STILL = dict(batch_size=32, learning_rate=0.02)
RUNS = {
    "m3d": dict(STILL, in_turn=False, matching="none", uses=1000),
    "datadam": dict(learning_rate=0.5, augmentation="none", start="noise"),
    "datadam paper": dict(protocol="paper", learning_rate=0.5, augmentation="none", start="noise"),
}


@pytest.mark.parametrize("run", RUNS)
def test_a_short_run_lowers_the_loss(run):
    _, _, first, last, losses = played(run.split()[0], 24, **RUNS[run])
    assert not np.array_equal(first.params["images"], last.params["images"])
    np.testing.assert_array_equal(first.params["labels"], last.params["labels"])
    assert losses[-4:].mean() < 0.8 * losses[:4].mean()


def test_idm_in_turn_lowers_its_loss():
    changes = dict(STILL, learning_rate=0.1, augmentation="none", label_weight=0.0,
                   queue_capacity=1, queue_every=1000, queue_steps=1)
    recipe, d, _, last, losses = played("idm", 36, **changes)
    assert losses[-4:].mean() < 0.8 * losses[:4].mean()
    # Its steps are those of model space, without a range: far beyond black here.
    images = jnp.zeros_like(last.params["images"])
    move, _ = recipe.optimizer.update(images + 1e3, recipe.optimizer.init(images), images)
    np.testing.assert_allclose(move, -0.1 * 1e3, rtol=1e-6)
    # The pool has moved on once for every two classes.
    assert int(last.objective.turn) == 0 and int(last.objective.inner.pool.calls) == 18
    assert d.decode(last).images.shape == (members.CLASSES * 4, *members.SHAPE)
