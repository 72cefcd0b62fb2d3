"""DC, DSA, DCC, IDC, DREAM and FYI as recipes: couplings, turns, starts, ranges and settings."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import methods, nets, pools
from dd_jax.data import from_arrays, normalise
from dd_jax.distill import Preparation, distillation, flipped, package, prepared
from dd_jax.errors import ConfigError
from dd_jax.evaluate import protocol
from dd_jax.evaluate.optimizers import rate_schedule
from dd_jax.methods import dc, idc
from dd_jax.objectives import class_by_class, gradient_matching
from dd_jax.synthetic import stored_bytes
from dd_jax.types import SyntheticSet
from tests.laws import members
from tests.objectives import reference_gradients as reference

SMALL = dict(width=2, depth=1, batch_size=2, evaluation_width=2, evaluation_epochs=2)
SMALL_IDC = dict(SMALL, train_images=8, network_batch_size=4, uses=2, networks=2)


def stepper(d):
    return jax.jit(lambda state, data: d.step(state, d.fetch(data, d.sample(state, data)))[0])


def pixels_of(recipe, images):
    return np.asarray(images) * np.asarray(recipe.normaliser.std) + np.asarray(
        recipe.normaliser.mean)


def three_classes():
    rng = np.random.default_rng(4)
    return from_arrays(rng.integers(0, 256, (24, 8, 8, 1), np.uint8), np.arange(24) % 3)


def test_classes_in_turn_share_one_momentum():
    """A step for each class moves the whole tensor: v <- m v + (0 .. g_c .. 0), x <- x - rate v."""
    data = three_classes()
    base = methods.recipe("dc", data, protocol="cpu", **SMALL)
    network = nets.mlp(data.spec, width=8, depth=2)
    pool = pools.inner_trained_pool(network, uses=1000, epochs=0)
    rate, momentum, steps = 0.05, 0.5, 5
    recipe = dataclasses.replace(
        base, objective=class_by_class(gradient_matching(network, pool, batch_size=4)),
        optimizer=optax.sgd(rate, momentum=momentum))
    d = distillation(recipe)
    state = jax.jit(d.init)(jax.random.key(0), data)
    params = reference.as_float64(state.objective.inner.variables["params"])
    labels = np.asarray(state.params["labels"], np.float64)
    np.testing.assert_array_equal(labels, np.eye(3))
    x = np.asarray(state.params["images"], np.float64)
    velocity, step = np.zeros_like(x), stepper(d)
    sample = jax.jit(lambda state: d.sample(state, data))

    def own_loss(real, c, images):
        return reference.class_loss(params, images, labels, real, c)

    for i in range(steps):
        c = i % 3
        rows = sample(state)
        np.testing.assert_array_equal(np.asarray(data.labels)[rows], [[k] * 4 for k in range(3)])
        real = np.asarray(normalise(recipe.normaliser, data.images[rows]), np.float64)
        loss = functools.partial(own_loss, real, c)
        slope = reference.central_differences(loss, x, only=slice(c, c + 1))
        velocity = momentum * velocity + slope
        x = x - rate * velocity
        state = step(state, data)
        size = np.abs(rate * velocity).max()
        np.testing.assert_allclose(state.params["images"], x, atol=2e-3 * size, rtol=1e-5)
    assert int(state.objective.inner.uses) == 1 and int(state.objective.turn) == 2


def test_dcc_warms_up_class_by_class_in_the_first_uses_of_the_first_networks():
    data = members.toy_data()
    settings = dict(protocol="cpu", networks=4, uses=3, epochs=1, start="real", **SMALL)
    build = {
        "warm": ("dcc", dict(warm_networks=2, warm_uses=2)),
        "joint": ("dcc", dict(warm_networks=0)),
        "class-wise": ("dc", {}),
    }
    recipes = {n: methods.recipe(m, data, **{**settings, **o}) for n, (m, o) in build.items()}
    synthetic = members.start("noise", labels="one_hot")
    first = recipes["warm"].objective
    state = first.init(jax.random.key(0), synthetic)
    d = distillation(recipes["warm"])
    rows = first.sample(data, state, jax.random.key(1))
    batch = d.fetch(data, rows)
    np.testing.assert_array_equal(batch.rows, rows)
    batch = batch._replace(images=normalise(recipes["warm"].normaliser, batch.images))

    @jax.jit
    def losses(state):
        return {name: r.objective.loss(synthetic, state, batch, jax.random.key(2))[0]
                for name, r in recipes.items()}

    for renewals in range(4):
        for uses in range(3):
            at = state._replace(uses=jnp.int32(uses), renewals=jnp.int32(renewals))
            values = {name: float(v) for name, v in losses(at).items()}
            wanted = "class-wise" if renewals < 2 and uses < 2 else "joint"
            np.testing.assert_allclose(values["warm"], values[wanted], rtol=1e-6)
            assert abs(values["class-wise"] - values["joint"]) > 1e-2


def test_dcc_of_one_class_is_refused_and_m3d_is_not():
    """M3D matches each class by itself; of DCC there would be no contrast."""
    one = from_arrays(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8),
                      np.zeros(6, np.int64), num_classes=1)
    with pytest.raises(ConfigError, match="1 class, expected at least 2.*method 'dm'"):
        methods.recipe("dcc", one, **SMALL)
    methods.recipe("m3d", one, **SMALL)


@pytest.mark.parametrize("change", [{"warm_uses": 0}, {"warm_networks": 0}],
                         ids=["uses", "networks"])
def test_dcc_without_a_warm_up_matches_jointly(change, monkeypatch):
    asked = {}

    def recorded(network, pool, **options):
        asked.update(options)
        return gradient_matching(network, pool, **options)

    monkeypatch.setattr(dc, "gradient_matching", recorded)
    methods.recipe("dcc", members.toy_data(), **change)
    assert asked["class_wise"] is False


@pytest.fixture(scope="module")
def idc_run():
    """IDC with classes in turn and an absurd rate: recipe, start, next four states, step."""
    data = members.toy_data()
    recipe = methods.recipe("idc", data, ipc=2, learning_rate=1e7, **SMALL_IDC)
    d = distillation(recipe)
    states = [jax.jit(d.init)(jax.random.key(0), data)]
    step = stepper(d)
    for _ in range(4):
        states.append(step(states[-1], data))
    return data, recipe, d, states, step


def test_idc_starts_from_real_images_shrunk_into_quadrants(idc_run):
    data, recipe, d, states, _ = idc_run
    stored = pixels_of(recipe, states[0].params["images"])
    shrunk = np.asarray(data.images)[:, ::2, ::2] / 255.0  # nearest neighbours
    used = []
    for i, image in enumerate(stored):
        for patch in (image[:4, :4], image[:4, 4:], image[4:, :4], image[4:, 4:]):
            errors = np.abs(shrunk - patch).max(axis=(1, 2, 3))
            used.append(int(errors.argmin()))
            assert errors.min() < 1e-5
            assert int(data.labels[used[-1]]) == i // 2
    assert len(set(used)) == len(used)
    shown = d.decode(states[0])
    assert shown.images.shape == (16, *members.SHAPE)
    np.testing.assert_array_equal(shown.labels.argmax(axis=1), np.repeat([0, 1], 8))


def test_idc_keeps_pixels_between_black_and_white(idc_run):
    _, recipe, _, states, _ = idc_run
    for state in states[1:]:
        x = pixels_of(recipe, state.params["images"])
        assert x.min() > -1e-5 and x.max() < 1 + 1e-5
    assert (x < 1e-5).sum() > 10 and (x > 1 - 1e-5).sum() > 10  # the rate was absurd enough


def test_idc_takes_turns_and_renews_after_all_have_had_them(idc_run):
    _, recipe, _, states, _ = idc_run
    pool = [s.objective.inner for s in states]
    assert [(int(p.renewals), int(p.uses)) for p in pool] == [
        (0, 0), (0, 0), (0, 1), (0, 1), (1, 0)]
    assert recipe.steps == 2 * 2 * 2  # networks, uses, classes
    first, second = (np.asarray(states[i].params["images"]) for i in (0, 1))
    moved = np.abs(second - first).max(axis=(1, 2, 3)) > 0
    np.testing.assert_array_equal(moved, [True, True, False, False])


def test_idc_trains_its_networks_on_real_images(idc_run):
    data, recipe, d, states, step = idc_run
    before = states[1]  # before the last turn, after which the network is trained
    rows = d.sample(before, data)
    assert rows["match"].shape == (2, 2) and rows["train"].shape == (8,)
    assert len(set(np.asarray(rows["train"]).tolist())) == 8

    def trained(state, data):
        leaves = jax.tree.leaves(step(state, data).objective.inner.variables)
        return np.concatenate([np.ravel(x) for x in leaves])

    images = -0.5 * before.params["images"]
    other_set = before._replace(params={**before.params, "images": images})
    negative = dataclasses.replace(data, images=255 - data.images)
    plain = trained(before, data)
    np.testing.assert_array_equal(plain, trained(other_set, data))
    assert np.abs(plain - trained(before, negative)).max() > 1e-4


def test_the_budget_of_idc_is_what_it_stores(idc_run):
    data, recipe, d, states, _ = idc_run
    stored = stored_bytes(states[-1].params)
    finished = package(recipe, d.decode(states[-1]), data, stored_bytes=stored)
    assert finished.synthetic.images.shape[0] == 16 and finished.ipc == 2
    assert finished.stored_bytes == 4 * (4 * 64 + 4 * 2)


def test_idc_of_factor_one_shows_its_real_images():
    data = members.toy_data()
    recipe = methods.recipe("idc", data, ipc=2, factor=1, **SMALL_IDC)

    @jax.jit
    def started(key):
        params = recipe.parameterization.init(key, recipe.initialise(data, key))
        return recipe.parameterization.decode(params, key)

    shown = started(jax.random.key(5))
    real = np.asarray(normalise(recipe.normaliser, data.images))
    assert shown.images.shape == (4, *members.SHAPE)
    for i, image in enumerate(np.asarray(shown.images)):
        errors = np.abs(real - image).max(axis=(1, 2, 3))
        assert errors.min() < 1e-6 and int(data.labels[errors.argmin()]) == i // 2


@pytest.mark.parametrize("shape,rate,distance,train", [
    ((28, 28, 1), 1e-4 * (28 / 32) ** 2, "conv_absolute", 40),
    ((32, 32, 3), 5e-3, "conv_squared", 40),
], ids=["grey", "colour"])
def test_idc_by_channels(shape, rate, distance, train, monkeypatch):
    rng = np.random.default_rng(0)
    data = from_arrays(rng.integers(0, 256, (40, *shape), np.uint8), np.arange(40) % 2)
    asked = {}

    def recorded(network, pool, **options):
        asked.update(options)
        return gradient_matching(network, pool, **options)

    monkeypatch.setattr(idc, "gradient_matching", recorded)
    for ipc in (10, 5):
        recipe = methods.recipe("idc", data, ipc=ipc, factor=1)
        # Gradients of one and middle grey: in pixels the first step is the rate, the second 1.5.
        std = np.asarray(recipe.normaliser.std)
        grey = jnp.asarray((0.5 - np.asarray(recipe.normaliser.mean)) / std * np.ones(shape))[None]
        state = recipe.optimizer.init(grey)
        for size in (1.0, 1.5):
            update, state = recipe.optimizer.update(jnp.ones_like(grey) * std, state, grey)
            np.testing.assert_allclose(update * std, np.full(grey.shape, -size * rate * ipc / 10),
                                       rtol=2e-2)
    wanted = dict(distance=distance, batch_size=64, most=128, train_rows=train)
    assert {name: asked[name] for name in wanted} == wanted
    assert recipe.objective.init.__qualname__.startswith("class_by_class")
    assert recipe.steps == 2000 * 100 * 2


TINY = {
    "frepo": dict(width=2, depth=1, batch_size=8, pool_size=2, max_age=2, evaluation_width=2,
                  flip=False),
    "dm": dict(SMALL, augmentation="none"),
    "dsa": dict(SMALL, augmentation="none", uses=1, epochs=1, networks=2),
    "idc": dict(SMALL_IDC, in_turn=False, uses=1),
    "kip": dict(kernel="fc1", batch_size=8, evaluation_width=2),
}


@pytest.mark.parametrize("name", TINY)
def test_any_recipe_can_be_flipped(name):
    data = members.toy_data()
    plain = methods.recipe(name, data, protocol="cpu", **TINY[name])
    wrapped = flipped(plain)
    assert wrapped.settings != plain.settings
    assert {k: v for k, v in wrapped.settings.items() if k in plain.settings} == plain.settings
    assert (wrapped.method, wrapped.evaluation) == (plain.method, plain.evaluation)
    d = distillation(wrapped)

    before = jax.jit(d.init)(jax.random.key(0), data)
    after, step = before, stepper(d)
    for _ in range(2):
        after = step(after, data)
    assert int(after.step) == 2  # both steps were finite
    shape = distillation(plain).decode(before).images.shape
    assert d.decode(after).images.shape == shape
    assert np.any(np.asarray(before.params["images"]) != after.params["images"])


def test_fyi_is_dsa_flipped():
    data = members.toy_data()
    settings = dict(protocol="cpu", **TINY["dsa"])
    fyi, dsa = (methods.recipe(name, data, **settings) for name in ("fyi", "dsa"))
    assert fyi.method == "fyi" and fyi.settings == flipped(dsa).settings
    synthetic = SyntheticSet(*members.start("noise", labels="one_hot")[:2])
    mirrored = synthetic._replace(images=synthetic.images[:, :, ::-1])
    state = fyi.objective.init(jax.random.key(0), synthetic)
    rows = fyi.objective.sample(data, state, jax.random.key(1))
    batch = distillation(fyi).fetch(data, rows)
    batch = batch._replace(images=normalise(fyi.normaliser, batch.images))
    values = jax.jit(lambda s: [r.objective.loss(s, state, batch, jax.random.key(2))[0]
                                for r in (fyi, dsa)])
    (ours, plain), (of_mirrors, other) = values(synthetic), values(mirrored)
    np.testing.assert_allclose(ours, of_mirrors, rtol=1e-5)  # sees both sides of every image
    assert abs(float(plain - other)) > 1e-3 * abs(float(plain))


@pytest.mark.parametrize("ipc,dc_loops,dcc_loops", [
    (1, (1, 1), (10, 5)), (10, (10, 50), (10, 50)), (20, (20, 25), (20, 25)),
    (30, (30, 20), (30, 20)), (40, (40, 15), (40, 15)), (50, (50, 10), (50, 10)),
])
def test_official_loops(ipc, dc_loops, dcc_loops):
    for name, loops in (("dc", dc_loops), ("dsa", dc_loops), ("fyi", dc_loops),
                        ("dcc", dcc_loops), ("dsac", dcc_loops)):
        config = methods.preset(methods.get(name), "official", ipc)
        assert (config.uses, config.epochs, config.networks) == (*loops, 1000), name
        assert (config.learning_rate, config.momentum, config.batch_size) == (0.1, 0.5, 256)
        assert (config.network_rate, config.network_batch_size) == (0.01, 256)
        assert config.start == ("noise" if name == "dc" else "real")
        siamese = name in ("dsa", "dsac", "fyi")
        assert config.augmentation == ("dsa" if siamese else "none")
        assert config.evaluation_epochs == (1001 if siamese else 301)
        if "dc" in name and name != "dc":
            assert (config.warm_networks, config.warm_uses) == (250, 10)


def test_official_settings_of_idc_and_dream():
    for name, batch_size in (("idc", 64), ("dream", 128)):
        config = methods.preset(methods.get(name), "official", 10)
        assert (config.factor, config.networks, config.uses) == (2, 2000, 100)
        assert (config.batch_size, config.most, config.in_turn) == (batch_size, 128, True)
        assert (config.network_rate, config.network_momentum, config.network_decay) == (
            0.01, 0.9, 5e-4)
        assert (config.network_batch_size, config.mix, config.momentum) == (64, 0.5, 0.5)
    assert config.every == 10 and config.candidates is None
    protocol = methods.recipe("idc", members.toy_data(), factor=1).evaluation
    by = protocol.optimizer
    assert (protocol.plan.epochs, protocol.plan.batch_size) == (1000, 64)
    assert (by.schedule, by.learning_rate, by.momentum, by.weight_decay) == ("milestones", 0.01,
                                                                             0.9, 5e-4)
    assert (protocol.views.cutmix, protocol.views.augmentation) == (0.5, "idc")


def test_a_recipe_is_flipped_once_and_keeps_what_it_was_given():
    toy = members.toy_data()
    once = flipped(methods.recipe("dm", toy, depth=1, width=4, batch_size=4, steps=3))
    with pytest.raises(ConfigError, match="flipped already"):
        flipped(once)
    later = dataclasses.replace(once, settings={k: v for k, v in once.settings.items()
                                                if k != "flipped"},
                                prepare=Preparation(lambda data, key: {"x": jnp.zeros(())},
                                                    lambda recipe, arrays: recipe))
    changed = dataclasses.replace(flipped(later), steps=7)
    complete = prepared(changed, toy, jax.random.key(0))
    assert complete.steps == 7 and complete.settings["flipped"] is True


@pytest.mark.parametrize("total", [12, 1200])
def test_the_rate_drops_at_two_thirds_and_five_sixths(total):
    rate = rate_schedule(protocol("idc", schedule="milestones", learning_rate=0.5).optimizer, total,
                         1)
    fractions = {0: 1.0, 2 * total // 3 - 1: 1.0, 2 * total // 3: 0.2, 5 * total // 6 - 1: 0.2,
                 5 * total // 6: 0.04, total - 1: 0.04}
    for step, fraction in fractions.items():
        np.testing.assert_allclose(rate(step), 0.5 * fraction, rtol=1e-5)


@pytest.mark.parametrize("name,change,message", [
    ("dc", {"uses": 0}, "uses"), ("dc", {"epochs": -1}, "epochs"), ("dc", {"networks": 0},
                                                                     "networks"),
    ("dc", {"distance": "euclid"}, "euclid"), ("dc", {"network_rate": -0.1}, "network_rate"),
    ("dsa", {"augmentation": "dsaa"}, "dsaa"), ("dc", {"start": "reel"}, "reel"),
    ("dcc", {"warm_uses": 11}, "warm_uses"), ("dcc", {"warm_networks": 1001}, "warm_networks"),
    ("dcc", {"warm_networks": -1}, "warm_networks"), ("dsac", {"warm_uses": True}, "warm_uses"),
    ("idc", {"factor": 0}, "factor"), ("idc", {"mix": 2.0}, "mix"), ("idc", {"most": 0}, "most"),
    ("idc", {"train_images": 0}, "train_images"), ("idc", {"distance": "l1"}, "l1"),
    ("idc", {"mix": 1.5}, "mix is 1.5"), ("dream", {"every": 0}, "every"),
], ids=lambda value: value if isinstance(value, str) else None)
def test_wrong_settings_are_refused_by_name(name, change, message):
    with pytest.raises(ConfigError, match=message):
        methods.recipe(name, members.toy_data(), **change)


@pytest.mark.parametrize("value", [-0.1, 2.0, float("nan")])
def test_a_protocol_mixes_with_a_probability(value):
    with pytest.raises(ConfigError, match="cutmix"):
        protocol("idc", cutmix=value)


def test_budgets_between_the_published_ones_take_the_loops_below():
    assert dc.loops(7) == dc.loops(1) and dc.loops(49) == dc.loops(40)
    assert dc.loops(100) == dc.loops(50)
