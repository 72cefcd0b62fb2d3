"""DD, soft-label DD, label distillation, RaT-BPTT, LinBa and PoDD: what their papers set, what
their steps move, and how their sets are tested. Networks are perceptrons.
"""

from __future__ import annotations

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dd_jax as dd
from dd_jax import methods, train
from dd_jax.errors import ConfigError, NonFiniteError
from dd_jax.evaluate import evaluate_full, evaluate_random, own_protocol, protocol
from dd_jax.labels import losses, own_labels
from dd_jax.methods.families import unrolling
from dd_jax.methods.frame import Site
from dd_jax.objectives import RandomWindow
from dd_jax.types import Split
from tests.laws import members
from tests.methods import tiny

NAMES = ("dd", "soft_label_dd", "label_distillation", "rat_bptt", "linba", "podd")
NETWORK = members.one_convolution(8)
TRAIN = importlib.import_module("dd_jax.evaluate.train")
EVALUATE = importlib.import_module("dd_jax.evaluate.evaluate")


def build(name, *, ipc=2, **changes):
    return tiny.recipe(name, ipc=ipc, **changes)


def run(recipe, key=0):
    metrics = []
    done = dd.distill(recipe, members.toy_data(), key=key, show_progress=False, log_every=1,
                      callbacks=[lambda step, m: metrics.append(m)])
    return done, metrics


@pytest.fixture(scope="module", autouse=True)
def perceptrons():
    """In place of ConvNets, which take longer to compile, in distillation and in the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site, "convnet", lambda at: NETWORK)
        patch.setattr(EVALUATE, "build_network", lambda protocol, spec: NETWORK)
        yield


@pytest.fixture(scope="module")
def fixed_dd():
    """A whole run for one fixed network: (set, metrics)."""
    return run(build("dd", initialisation="fixed", network_seed=5))


@pytest.mark.parametrize("name,changes", [
    ("dd", {}), ("dd", dict(initialisation="fixed", network_seed=5)), ("soft_label_dd", {}),
    ("label_distillation", {}), ("rat_bptt", dict(labels="learned")), ("linba", {}), ("podd", {})],
    ids=["dd", "dd-fixed", "soft_label_dd", "label_distillation", "rat_bptt", "linba", "podd"])
def test_some_steps_lower_the_loss(name, changes, request):
    fixed = changes.get("initialisation") == "fixed"
    recipe = build(name, **changes)
    done, metrics = request.getfixturevalue("fixed_dd") if fixed else run(recipe)
    losses = [m["loss"] for m in metrics]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8]), losses
    assert all(0 <= m["accuracy"] <= 1 for m in metrics)
    synthetic, one_hot = done.synthetic, np.repeat(np.eye(2), 2, axis=0)
    assert done.label_kind == recipe.labels.kind
    if name in ("dd", "soft_label_dd"):
        assert synthetic.learning_rate.shape == (6,) and np.ptp(synthetic.learning_rate) > 1e-3
        assert np.array_equal(synthetic.labels, one_hot) == (name == "dd")
    if name == "label_distillation":
        np.testing.assert_allclose(synthetic.labels.sum(axis=1), 1, rtol=1e-5)
        assert np.argmax(synthetic.labels, axis=1).tolist() == [0, 0, 1, 1]
        first = jax.jit(recipe.start)(members.toy_data(), jax.random.key(0))
        assert synthetic.learning_rate is None and set(first.labels.ravel().tolist()) == {0.5}
    if name == "rat_bptt":
        assert synthetic.labels.min() >= 0 and np.abs(synthetic.labels - one_hot).max() > 0.05
        assert {m["window"] for m in metrics} == {0, 1, 2, 3}
        places = [m["window"] for m in metrics]
        assert all(places[i] == places[i + 1] for i in range(0, 40, 2))


def test_label_distillation_moves_labels_only():
    recipe, data = build("label_distillation", steps=3), members.toy_data()
    d = dd.distillation(recipe)
    first = jax.jit(d.init)(jax.random.key(0), data)
    state, _, done = jax.jit(d.run, static_argnums=3)(first, data, 3, 3)
    assert done == 3
    np.testing.assert_array_equal(state.params["images"], first.params["images"])
    assert np.any(state.params["labels"] != first.params["labels"])
    assert int(state.objective.pool.age) == 3
    assert state.objective.plan.shape == (2,)  # the network has the student's batches


def test_a_pretrained_bank_is_where_training_begins():
    done = build("dd", initialisation="pretrained", bank_steps=30, steps=2)
    d, data = dd.distillation(done), members.toy_data()
    state = jax.jit(d.init)(jax.random.key(0), data)
    state, metrics = jax.jit(d.step)(state, d.fetch(data, d.sample(state, data)))
    assert metrics["accuracy"] > 0.8  # of trained networks, whatever the first noise does


@pytest.mark.parametrize("name,ipc,wanted", [
    ("dd", 10, dict(epochs=3, rate=0.02, image_rate=0.01, batch_size=1024, start="noise",
                    initialisation="random", networks=1, width=128)),
    ("soft_label_dd", 10, dict(epochs=3, rate=0.02, image_rate=0.01)),
    ("label_distillation", 10, dict(inner_batch_size=50, inner_rate=0.01, label_rate=1e-3,
                                    network_rate=1e-3, batch_size=1024, evaluation_seeds=20)),
    ("rat_bptt", 10, dict(window=60, inner_steps=200, batch_size=5000, per_class=10, hold=10,
                          inner_rate=1e-3, image_rate=1e-3, normaliser="zca_per_image_raw",
                          augmentation="flip_rotate", labels="fixed", unit_norm=True,
                          start="noise", cap=2.0)),
    ("linba", 1, dict(bases=16, downsample=2, inner_steps=150, inner_rate=0.01, inner_momentum=0.9,
                      per_class=32, batch_size=64, memory_rate=0.1, memory_momentum=0.5, clip=2.0,
                      evaluation_epochs=300, evaluation_batch_size=640, evaluation_seeds=10)),
    ("podd", 0.9, dict(rows=6, columns=16, window=60, patience=60, fractions=False, label_ipc=1,
                       inner_steps=200, image_rate=1e-3, inner_rate=1e-3, batch_size=5000,
                       labels="fixed", patch_batch=96, normaliser="zca_per_image_raw",
                       augmentation="flip_rotate", evaluation_seeds=8)),
    ("podd", 0.3, dict(rows=None, columns=None, patch_batch=96)),
])
def test_official_settings(name, ipc, wanted):
    config = dataclasses.asdict(methods.preset(name, "official", ipc))
    assert {key: config[key] for key in wanted} == wanted


@pytest.mark.parametrize("name,data,ipc,wanted", [
    ("rat_bptt", "cifar100", 1, dict(window=90, inner_steps=130, window_mode="last",
                                     image_rate=3e-4, labels="learned")),
    ("rat_bptt", "cifar100", 10, dict(window=100, inner_steps=300, window_mode="random",
                                      per_class=1, labels="learned", image_rate=1e-3)),
    ("rat_bptt", "tiny_imagenet", 10, dict(window=100, inner_steps=300, classes=50, batch_size=1000,
                                           normaliser="standardise", image_rate=3e-4)),
    ("podd", "cifar100", 0.9, dict(rows=20, columns=20, patch_batch=50, batch_size=2000, window=100,
                                   inner_steps=300, labels="learned")),
    ("podd", "tiny_imagenet", 0.9, dict(rows=20, columns=40, patch_batch=30, batch_size=500,
                                        depth=3, inner_rate=5e-4, image_rate=5e-4)),
    ("podd", "cifar100", 0.4, dict(rows=None, columns=None, patch_batch=50)),
])
def test_official_settings_of_other_data(name, data, ipc, wanted):
    config = dataclasses.asdict(methods.preset(name, "official", ipc, data=data))
    assert {key: config[key] for key in wanted} == wanted
    methods.preset(name, "cpu", ipc, data=data)


@pytest.mark.parametrize("name,published", [("rat_bptt", "flip_rotate"), ("podd", "flip_rotate"),
                                            ("linba", "none")])
def test_networks_of_the_test_see_the_training_s_augmentation(name, published):
    assert methods.preset(name, "official", 1).augmentation == published
    for augmentation in ("none", "flip_rotate"):
        recipe = build(name, augmentation=augmentation)
        assert recipe.evaluation.views.augmentation == augmentation


@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_a_variant_that_needs_less_memory(name, monkeypatch):
    recipe, asked = build(name), []
    assert set(recipe.objective.variants) == {"adjoint='recursive'"}
    monkeypatch.setattr(unrolling, "adjoint_by_name", asked.append)
    recipe.objective.variants["adjoint='recursive'"]()
    assert asked == ["recursive"]


@pytest.mark.parametrize("name,ipc,kind,numbers", [
    ("linba", 2, "addressed", 3 * 16 + 2 * 34 * 3 + 2 * 2),  # bases, addresses, labels
    ("podd", 0.75, "poster", 96 + 2 * 2),  # 8 x 12 pixels, and a label map of two cells
])
def test_a_small_memory_is_all_that_the_file_holds(name, ipc, kind, numbers, tmp_path):
    recipe, data = build(name, ipc=ipc, steps=2), members.toy_data()
    done = dd.distill(recipe, data, key=0, workdir=tmp_path, show_progress=False)
    assert done.ipc == ipc and done.stored.kind == kind and done.stored_bytes == 4 * numbers
    found = dd.store.load(tmp_path / "set.safetensors")
    np.testing.assert_allclose(found.synthetic.images, done.synthetic.images, atol=1e-5)
    np.testing.assert_allclose(found.synthetic.labels, done.synthetic.labels, atol=1e-5)
    size = (tmp_path / "set.safetensors").stat().st_size
    assert found.synthetic.images.nbytes > done.stored_bytes
    plain = dataclasses.replace(done, stored=None)
    dd.store.save(tmp_path / "images.safetensors", plain)
    saved = (tmp_path / "images.safetensors").stat().st_size - size
    assert saved > found.synthetic.images.nbytes - done.stored_bytes - 1000


def test_a_poster_is_shown_whole(tmp_path):
    done = dd.distill(build("podd", ipc=1, steps=1), members.toy_data(), show_progress=False)
    assert dd.report.is_poster(done)
    height, width = done.stored.arguments["shape"]
    from PIL import Image
    picture = Image.open(dd.report.save_poster(tmp_path / "poster.png", done, scale=2))
    assert picture.size == (2 * width, 2 * height) == (32, 16)
    with pytest.raises(ConfigError, match="not stored as a poster"):
        dd.report.save_poster(tmp_path / "no.png", dataclasses.replace(done, stored=None))


def test_neighbours_on_a_poster_are_alike():
    """Five classes by brightness: the grid of one row goes along it, if it is asked to."""
    level = np.array([0, 200, 50, 250, 100], np.uint8)
    images = np.broadcast_to(level[:, None, None, None], (5, 8, 8, 1))
    data = dd.data.from_arrays(np.concatenate([images, images]), np.tile(np.arange(5), 2))
    for ordered, wanted in ((True, [0, 2, 4, 1, 3]), (False, [0, 1, 2, 3, 4])):
        recipe = tiny.recipe("podd", data, normaliser="none", ordered=ordered)
        found = recipe.parameterization.record[1]["order"]
        assert found == [wanted]


def test_images_of_rat_bptt_start_with_norm_one():
    first = build("rat_bptt", unit_norm=True).start(members.toy_data(), jax.random.key(0))
    np.testing.assert_allclose(np.sqrt((first.images**2).sum(axis=(1, 2, 3))), 1, rtol=1e-5)


@pytest.mark.parametrize("normaliser,size", [("standardise", 1.0), ("zca_per_image_raw", 1 / 8)])
def test_a_poster_starts_as_large_as_standardised_images_are_or_with_norm_one(normaliser, size):
    """On 8 x 8 pixels; blending leaves a part of the size, where areas overlap."""
    recipe = build("podd", ipc=1, normaliser=normaliser)
    start = recipe.start(members.toy_data(), jax.random.key(0))
    poster = recipe.parameterization.init(jax.random.key(1), start)["poster"]
    assert 0.6 * size < float(jnp.sqrt(jnp.mean(poster**2))) < 1.1 * size


def test_the_published_poster_of_podd_and_the_settings_of_its_labels():
    rng = np.random.default_rng(0)
    data = dd.data.from_arrays(rng.integers(0, 256, (20, 32, 32, 3), np.uint8), np.arange(20) % 10)
    options = dict(normaliser="standardise", depth=1)
    recipe = methods.recipe("podd", data, protocol="official", ipc=0.9, **options)
    record = recipe.parameterization.record[1]
    found = (record["shape"], record["patches"], record["class_grid"])
    assert found == ((60, 153), (6, 16), (2, 5))
    assert recipe.evaluation.plan.batch_size == 96  # all patches in every step
    assert (record["fractions"], record["label_ipc"]) == (False, 1)
    other = methods.recipe("podd", data, protocol="official", ipc=0.9, fractions=True, label_ipc=3,
                           **options).parameterization.record[1]
    assert (other["fractions"], other["label_ipc"]) == (True, 3)


@pytest.mark.parametrize("name", ["rat_bptt", "podd"])
def test_patience_is_that_of_the_window(name, monkeypatch):
    made = []
    windowed = importlib.import_module("dd_jax.methods.families.windowed")

    def recorded(*arguments):
        made.append(RandomWindow(*arguments))
        return made[-1]

    monkeypatch.setattr(windowed, "RandomWindow", recorded)
    build(name, window_mode="forward", patience=7)
    assert made == [RandomWindow(3, 6, 0, "forward", hold=2, patience=7)]


def written_out(synthetic, protocol, rates, *, variables):
    """DD's test by a Python loop."""
    params = variables["params"]
    for s, rate in enumerate(rates):
        rows = np.array([0, 2]) + s % 2

        def loss(params, rows=rows):
            logits = NETWORK.apply({"params": params}, jnp.asarray(synthetic.images[rows])).logits
            return jnp.mean(optax.losses.softmax_cross_entropy(
                logits, jnp.asarray(synthetic.labels[rows])))

        params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))  # noqa: B023
    return params


def trained_by(protocol, synthetic, key=3):
    images, labels = map(jnp.asarray, (synthetic.images, synthetic.labels))
    return TRAIN.train(NETWORK, protocol, size=4, take=train.rows_of(images, labels),
                       augmentation=None, supervision=own_labels(),
                       epochs=protocol.plan.epochs, batch_size=protocol.plan.batch_size,
                       key=jax.random.key(key))["params"]


def test_a_set_of_dd_is_tested_in_its_order_at_its_rates_from_its_network(fixed_dd, tmp_path):
    done, metrics = fixed_dd
    dd.store.save(tmp_path / "set.safetensors", done)
    loaded = dd.store.load(tmp_path / "set.safetensors")
    protocol = own_protocol(loaded)
    by = protocol.optimizer
    assert (protocol.plan.order, protocol.start_seed, by.weight_decay, by.momentum,
            protocol.seeds) == ("stored", 5, 0.0, 0.0, 1)
    seen = EVALUATE.at_own_rate(protocol, loaded.synthetic)
    rates = np.asarray(loaded.synthetic.learning_rate)
    np.testing.assert_array_equal(np.float32(seen.optimizer.learning_rate), rates)
    start = NETWORK.init(jax.random.key(5))
    wanted = written_out(loaded.synthetic, seen, rates, variables=start)
    found = [trained_by(seen, loaded.synthetic, key) for key in range(2)]
    for params in found:
        for a, b in zip(*map(jax.tree.leaves, (params, wanted))):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    tested = dd.evaluate(loaded, members.toy_data(), protocol=protocol, key=jax.random.key(1))
    assert tested.accuracies.shape == (1,) and tested.mean > 0.9


def test_random_and_all_real_images_are_tested_by_the_same_protocol(fixed_dd):
    done, _ = fixed_dd
    data = Split(members.toy_data(), members.toy_data())
    protocol = own_protocol(done).varied(learning_rate=0.1, full_epochs=3,
                                   full_batch_size=16)
    options = dict(normaliser=done.normaliser, protocol=protocol, key=jax.random.key(0))
    random = evaluate_random(data, ipc=2, seeds=2, **options)
    assert random.accuracies.shape == (2,) and np.isfinite(random.mean)
    assert evaluate_full(data, **options).mean > 0.9


@pytest.mark.parametrize("name", ["soft_label_dd", "rat_bptt"])
def test_free_labels_are_trained_on_by_cross_entropy(name):
    recipe = build(name, **(dict(labels="learned") if name == "rat_bptt" else {}))
    assert recipe.labels.kind == "logits"
    assert EVALUATE.loss_for("logits", recipe.evaluation) is losses.cross_entropy
    assert EVALUATE.loss_for("logits", protocol("other")) is losses.squared_error


def test_rat_bptt_is_tested_on_rows_of_classes():
    protocol = build("rat_bptt", evaluation_steps=6).evaluation
    plan, by = protocol.plan, protocol.optimizer
    assert (plan.order, plan.batch_size, plan.epochs) == ("classes", 2, 3)
    assert (by.name, by.learning_rate) == ("adam", 0.02)
    rows = []

    def take(r):
        jax.debug.callback(lambda r: rows.append(np.asarray(r).tolist()), r)
        return jnp.zeros((r.shape[0], *members.SHAPE)), jnp.eye(2)[r // 2]

    TRAIN.train(NETWORK, protocol, size=4, take=take, augmentation=None,
                supervision=own_labels(), epochs=3, batch_size=2, key=jax.random.key(0))
    jax.effects_barrier()
    assert len(rows) == 6 and all(r[0] < 2 <= r[1] for r in rows)
    assert len({tuple(r) for r in rows}) > 1


def test_an_exploding_loop_stops_the_run():
    """The inner rate a thousand times too large, and more."""
    recipe = build("dd", rate=1e12, steps=5, epochs=30)
    with pytest.raises(NonFiniteError, match="step 1 of dd"):
        run(recipe)


@pytest.mark.parametrize("make,said", [
    (lambda: protocol("t", order="sorted"), "'sorted'.*'stored'"),
    (lambda: protocol("t", order="stored"), "schedule='constant'"),
    (lambda: protocol("t", start_seed=-1), "start_seed is -1"),
    (lambda: protocol("t", learning_rate=(0.1, -0.1)), "learning_rate is -0.1"),
    (lambda: trained_by(protocol("t", order="stored", schedule="constant", batch_size=3, epochs=1),
                        members.start(labels="one_hot")), "batches of 3.*batch_size=2"),
    (lambda: trained_by(protocol("t", order="stored", schedule="constant", batch_size=2, epochs=2,
                                 learning_rate=(0.1,) * 6), members.start(labels="one_hot")),
     "6 learning rates for 2 epochs of 2 steps.*6 steps"),
    (lambda: dd.distill.flipped(build("dd")), "cannot be flipped.*order"),
])
def test_wrong_protocols_are_refused(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
