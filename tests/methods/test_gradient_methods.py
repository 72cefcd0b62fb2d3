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
from dd_jax.distill import distillation, flipped, package
from dd_jax.distill.plan import complete
from dd_jax.errors import ConfigError
from dd_jax.evaluate import protocol
from dd_jax.evaluate.optimizers import rate_schedule
from dd_jax.methods import dc, idc
from dd_jax.objectives import class_by_class, gradient_matching
from dd_jax.synthetic import stored_bytes
from dd_jax.types import SyntheticSet
from tests.laws import members
from tests.methods import tiny
from tests.objectives import reference_gradients as reference


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
    base = tiny.recipe("dc", data, protocol="cpu")
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
        np.testing.assert_array_equal(np.asarray(data.labels)[rows], [[c] * 4])
        own = np.asarray(normalise(recipe.normaliser, data.images[rows]), np.float64)[0]
        loss = functools.partial(own_loss, {c: own}, c)
        slope = reference.central_differences(loss, x, only=slice(c, c + 1))
        velocity = momentum * velocity + slope
        x = x - rate * velocity
        state = step(state, data)
        size = np.abs(rate * velocity).max()
        np.testing.assert_allclose(state.params["images"], x, atol=2e-3 * size, rtol=1e-5)
    assert int(state.objective.inner.uses) == 1 and int(state.objective.turn) == 2


def test_dcc_warms_up_class_by_class_in_the_first_uses_of_the_first_networks():
    data = members.toy_data()
    settings = dict(protocol="cpu", networks=4, uses=3, epochs=1, start="real")
    build = {
        "warm": ("dcc", dict(warm_networks=2, warm_uses=2)),
        "joint": ("dcc", dict(warm_networks=0)),
        "class-wise": ("dc", {}),
    }
    recipes = {n: tiny.recipe(m, **{**settings, **o}) for n, (m, o) in build.items()}
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


@pytest.mark.parametrize("change", [{"warm_uses": 0}, {"warm_networks": 0}],
                         ids=["uses", "networks"])
def test_dcc_without_a_warm_up_matches_jointly(change, monkeypatch):
    asked = {}

    def recorded(network, pool, **options):
        asked.update(options)
        return gradient_matching(network, pool, **options)

    monkeypatch.setattr(dc, "gradient_matching", recorded)
    tiny.recipe("dcc", **change)
    assert asked["class_wise"] is False


@pytest.fixture(scope="module")
def idc_run():
    """IDC with classes in turn and an absurd rate: recipe, start, next four states, step."""
    data = members.toy_data()
    recipe = tiny.recipe("idc", ipc=2, learning_rate=1e7)
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
    assert rows["match"].shape == (1, 2) and rows["train"].shape == (8,)
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
    recipe = tiny.recipe("idc", ipc=2, factor=1)

    @jax.jit
    def started(key):
        params = recipe.parameterization.init(key, recipe.start(data, key))
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
    assert recipe.objective.turns == 2  # one step for each class
    assert recipe.steps == 2000 * 100 * 2


FLIPPED = {
    "frepo": dict(flip=False),
    "dm": dict(augmentation="none"),
    "dsa": dict(augmentation="none", uses=1, epochs=1),
    "idc": dict(in_turn=False, uses=1),
    "kip": dict(batch_size=8),
}


@pytest.mark.parametrize("name", FLIPPED)
def test_any_recipe_can_be_flipped(name):
    data = members.toy_data()
    plain = tiny.recipe(name, protocol="cpu", **FLIPPED[name])
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
    fyi, dsa = (tiny.recipe(name, protocol="cpu", **FLIPPED["dsa"])
                for name in ("fyi", "dsa"))
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
        config = methods.preset(name, "official", ipc)
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
        config = methods.preset(name, "official", 10)
        assert (config.factor, config.networks, config.uses) == (2, 2000, 100)
        assert (config.batch_size, config.most, config.in_turn) == (batch_size, 128, True)
        assert (config.network_rate, config.network_momentum, config.network_decay) == (
            0.01, 0.9, 5e-4)
        assert (config.network_batch_size, config.momentum) == (batch_size, 0.5)
    assert config.every == 10 and config.candidates is None
    protocol = methods.recipe("idc", members.toy_data(), factor=1).evaluation
    by = protocol.optimizer
    assert (protocol.plan.epochs, protocol.plan.batch_size) == (1000, 64)
    assert (by.schedule, by.learning_rate, by.momentum, by.weight_decay) == ("milestones", 0.01,
                                                                             0.9, 5e-4)
    assert (protocol.views.cutmix, protocol.views.augmentation) == (0.5, "idc")


def test_a_recipe_is_flipped_once_and_a_plan_as_well():
    once = flipped(tiny.recipe("dm", steps=3))
    with pytest.raises(ConfigError, match="flipped already"):
        flipped(once)
    plan = tiny.plan("dream", in_turn=False).then(flipped)
    found = complete(plan.then(lambda recipe: dataclasses.replace(recipe, steps=7)),
                     members.toy_data())
    assert found.steps == 7 and found.settings["flipped"] is True
    with pytest.raises(ConfigError, match="flipped already"):
        complete(plan.then(flipped), members.toy_data())


@pytest.mark.parametrize("total", [12, 1200])
def test_the_rate_drops_at_two_thirds_and_five_sixths(total):
    rate = rate_schedule(protocol("idc", schedule="milestones", learning_rate=0.5).optimizer, total,
                         1)
    fractions = {0: 1.0, 2 * total // 3 - 1: 1.0, 2 * total // 3: 0.2, 5 * total // 6 - 1: 0.2,
                 5 * total // 6: 0.04, total - 1: 0.04}
    for step, fraction in fractions.items():
        np.testing.assert_allclose(rate(step), 0.5 * fraction, rtol=1e-5)


@pytest.mark.parametrize("value", [-0.1, 2.0, float("nan")])
def test_a_protocol_mixes_with_a_probability(value):
    with pytest.raises(ConfigError, match="cutmix"):
        protocol("idc", cutmix=value)


def test_budgets_between_the_published_ones_take_the_loops_below():
    def loops(ipc):
        config = methods.preset("dc", "official", ipc)
        return config.uses, config.epochs

    assert loops(7) == loops(1) and loops(49) == loops(40) and loops(100) == loops(50)
