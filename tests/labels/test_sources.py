"""Sources around a store: interpolated labels, calibration, hard epochs, a light projector."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import augment
from dd_jax.errors import ConfigError
from dd_jax.labels import Views, own_labels, teacher
from dd_jax.labels.calibrated import calibrated
from dd_jax.labels.draws import drawn_for, pruned_batches, show
from dd_jax.labels.interpolated import interpolated, mean_logits, mixed
from dd_jax.labels.losses import squared_error
from dd_jax.labels.projector import (
    LogitsAndLabels,
    SquaresAndClasses,
    class_prototypes,
    logits_and_labels,
    projector,
    projector_bytes,
    restored_projector,
    stored_projector,
)
from dd_jax.store import replay
from dd_jax.store.view_store import read_views, views_of
from dd_jax.train import fit, permuted_epochs, rows_of
from dd_jax.train.by_image import by_image
from dd_jax.train.hard_between import HardBetween, Heated, hard_between, heated_cross_entropy
from tests.labels import stored


def softmax(z):
    shares = np.exp(z - z.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def images():
    return jnp.asarray(stored.distilled().synthetic.images)


# INFER.


def test_interpolated_labels_are_mixed_logits():
    two = [stored.teacher(0), stored.teacher(1)]
    labels = np.asarray(mean_logits(two, images()))
    each = [np.asarray(n.apply(v, images()).logits) for n, v in two]
    np.testing.assert_allclose(labels, np.mean(each, axis=0), atol=1e-5)
    views, key = mixed(augment.by_name("inception", stored.SHAPE), mixing="mixup@0.8"), \
        jax.random.key(4)
    seen, told = views(key, images(), jnp.asarray(labels))
    draw_key, mix_key = jax.random.split(key)
    one = augment.by_name("inception", stored.SHAPE)
    plain = np.asarray(one.apply(one.draw(draw_key, 12), images()))
    mix = augment.mixing("mixup@0.8").draw(mix_key, 12, stored.SHAPE)
    a, p = float(mix["share"]), np.asarray(mix["partner"])
    np.testing.assert_allclose(seen, (1 - a) * plain + a * plain[p], atol=1e-5)
    np.testing.assert_allclose(told, (1 - a) * labels + a * labels[p], atol=1e-5)
    targets = interpolated(temperature=30.0).targets((), Views(seen, told, None, None, None))
    np.testing.assert_allclose(targets, softmax(np.asarray(told) / 30.0), atol=1e-6)


def test_interpolated_labels_train_at_their_temperature():
    supervision = interpolated(temperature=30.0)
    z, t = np.float32([[3.0, -2.0]]), np.float32([[0.25, 0.75]])
    wanted = -(t * np.log(softmax(z / 30.0))).sum()
    np.testing.assert_allclose(supervision.loss(jnp.asarray(z), jnp.asarray(t)), wanted, rtol=1e-5)
    with pytest.raises(ConfigError, match="temperature is 0"):
        interpolated(temperature=0)
    with pytest.raises(ConfigError, match="whole numbers"):
        mixed()(jax.random.key(0), images(), jnp.arange(12))
    with pytest.raises(ConfigError, match="expected those of one data set"):
        mean_logits([], images())


# FerKD.


@dataclasses.dataclass(frozen=True)
class Smoothed:
    """FerKD's rule, for the test: too unsure: left out; unsure: the smoothed class."""

    low: float = 0.3
    middle: float = 0.5

    def __call__(self, probabilities, classes):
        sure = probabilities.max(axis=-1)
        hard = 0.9 * jax.nn.one_hot(classes, probabilities.shape[-1]) + 0.02
        return jnp.where((sure < self.middle)[:, None], hard, probabilities), sure >= self.low


def test_a_calibrated_source_replaces_and_leaves_out():
    told = np.float32([[.2, .2, .2, .2, .2], [.4, .3, .1, .1, .1], [.6, .1, .1, .1, .1]])
    own = np.eye(5, dtype=np.float32)[[2, 3, 4]]
    source = dataclasses.replace(own_labels(), targets=lambda arrays, views: jnp.asarray(told))
    found = calibrated(source, Smoothed())
    for labels in (own, np.array([2, 3, 4])):
        targets = found.targets((), Views(None, jnp.asarray(labels), None, None, None))
        wanted = np.stack([np.zeros(5), [.02, .02, .02, .92, .02], told[2]])
        np.testing.assert_allclose(targets, wanted, atol=1e-6)
    gradient = jax.grad(lambda z: found.loss(z, targets).sum())(jnp.ones((3, 5)))
    assert not np.asarray(gradient)[0].any() and np.asarray(gradient)[1].any()
    assert calibrated(own_labels(), Smoothed()) == calibrated(own_labels(), Smoothed())
    with pytest.raises(ConfigError, match="expected a Supervision"):
        calibrated("teacher", Smoothed())
    with pytest.raises(ConfigError, match="expected a function"):
        calibrated(own_labels(), "ferkd")


def test_a_replay_may_be_calibrated(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", mixing="none")
    plain = replay(store, stored.distilled(), epochs=3)
    own = np.eye(5, dtype=np.float32)[np.arange(12) % 5]
    records = jnp.arange(6, 12)
    labels = jnp.asarray(own)[plain.drawn(1).rows]
    views = Views(None, labels, records, jnp.int32(0), None)
    told = plain.supervision.targets(plain.supervision.arrays, views)
    middle = float(np.sort(np.asarray(told).max(axis=1))[2:4].mean())
    rule = Smoothed(0.0, middle)
    single = replay(store, stored.distilled(), epochs=3, calibration=rule).supervision
    found = single.targets(single.arrays, views)
    wanted = np.where(np.asarray(told).max(axis=1, keepdims=True) < middle,
                      0.9 * np.asarray(labels) + 0.02, told)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (np.asarray(found) != np.asarray(told)).any(axis=1).sum() == 3


# HALD.


def hald(path, **changes):
    store = stored.store_at(path, temperature=20.0, options=(("kind", "probabilities"),),
                            epochs=2, **changes)
    return store, hard_between(replay(store, stored.distilled(), epochs=6, order="pool"), first=2,
                               last=4, smoothing=0.8)


@pytest.mark.parametrize("changes", [{}, {"kept": "draws"}, {"pruned": 0.5}])
def test_hard_epochs_lie_between_soft_ones(changes, tmp_path):
    store, replayed = hald(tmp_path / "a.safetensors", **changes)
    rule, codec, key = views_of(store)
    kept, labels = np.asarray(pruned_batches(rule, key)), read_views(store)["labels.values"]
    pool, own = len(kept), np.eye(5, dtype=np.float32)[np.arange(12) % 5]
    arguments = replayed.arguments(rows_of(images(), own), 6, jax.random.key(2))
    batches, supervision, soft = arguments["batches"], arguments["supervision"], []
    for epoch in range(6):
        begun = batches.begin(None, jnp.int32(epoch))
        for i in range(batches.steps):
            records, _ = batches.rows(begun, None, i)
            batch, hard = int(records[0]) // 6, 2 <= epoch < 4
            seen, mixed_labels = arguments["views"](None, *arguments["take"](records))
            number = rule.recorded + epoch * 2 + i if hard else kept[batch]
            assert (batch >= pool) == hard
            drawn = drawn_for(rule, key, number)
            wanted, own_mixed = show(rule, drawn, images()[drawn.rows],
                                     jnp.asarray(own)[drawn.rows])
            np.testing.assert_array_equal(seen, wanted)
            told = supervision.targets(supervision.arrays, Views(seen, mixed_labels, records,
                                                                 jnp.int32(epoch), None))
            target = 0.2 * own_mixed + 0.8 / 5 if hard else labels[batch].astype(np.float32)
            np.testing.assert_allclose(told.labels, target, atol=1e-6)
            assert set(np.asarray(told.temperature).tolist()) == {1.0 if hard else 20.0}
            soft += [] if hard else [batch]
    for first in range(0, 8 - pool + 1, pool):
        assert sorted(soft[first:first + pool]) == list(range(pool))


def test_a_training_with_hard_epochs_runs_and_differs(tmp_path):
    _, replayed = hald(tmp_path / "a.safetensors")
    network, _ = stored.teacher()
    own = np.eye(5, dtype=np.float32)[np.arange(12) % 5]

    def trained(replayed):
        return jax.jit(lambda: fit(
            network, network.init(jax.random.key(1)), key=jax.random.key(3),
            optimizer=optax.sgd(0.1),
            **replayed.arguments(rows_of(images(), own), 6, jax.random.key(2))))().variables

    own_fields = {f.name: getattr(replayed, f.name) for f in dataclasses.fields(HardBetween)}
    none = HardBetween(**{**own_fields, "first": 6, "last": 6})
    a, b = trained(replayed), trained(none)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(a))
    assert any(np.abs(x - y).max() > 1e-3 for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_each_row_has_its_temperature():
    z, t = np.float32([[3.0, -2.0], [1.0, 0.0]]), np.float32([[.25, .75], [1.0, 0.0]])
    heat = np.float32([20.0, 1.0])
    wanted = -(t * np.log(softmax(z / heat[:, None]))).sum(axis=1)
    found = heated_cross_entropy(jnp.asarray(z), Heated(jnp.asarray(t), jnp.asarray(heat)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_hard_epochs_that_cannot_be_are_refused(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    plain = replay(store, stored.distilled(), epochs=3)
    with pytest.raises(ConfigError, match="from 4 to 3"):
        hard_between(plain, first=4, last=3)
    with pytest.raises(ConfigError, match="smoothing is 2"):
        hard_between(plain, smoothing=2)
    with pytest.raises(ConfigError, match="another loss"):
        hard_between(replay(store, stored.distilled(), epochs=3, loss=squared_error))
    with pytest.raises(ConfigError, match="expected a Replay"):
        hard_between(store)


# FKD and Dataset Reinforcement: single views.


@pytest.mark.parametrize("augmentation", ["inception", "dsa"])
@pytest.mark.parametrize("plain", [0.0, 0.3])
def test_single_views_are_those_that_were_stored_or_new_ones(augmentation, plain, tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", "top3", kept="draws", mixing="none",
                            augmentation=augmentation)
    single = by_image(replay(store, stored.distilled(), epochs=40, order="pool"), plain=plain)
    rule, codec, key = views_of(store)
    arrays, own = read_views(store), np.eye(5, dtype=np.float32)[np.arange(12) % 5]
    whole = [drawn_for(rule, key, batch) for batch in range(rule.batches)]
    shown = np.stack([show(rule, d, images()[d.rows], None)[0] for d in whole])
    labels = np.asarray(codec.decode({n[7:]: x for n, x in arrays.items() if n[:7] == "labels."}))
    arguments = single.arguments(rows_of(images(), own), 40, jax.random.key(2))
    batches, supervision = arguments["batches"], arguments["supervision"]
    look = jax.jit(lambda records, key: arguments["views"](key, *arguments["take"](records)))
    new, seen_records = 0, set()
    for epoch in range(40):
        order = batches.begin(jax.random.key(epoch), epoch)
        seen_rows = []
        for i in range(batches.steps):
            records, counted = batches.rows(order, jax.random.key(1000 * epoch + i), i)
            assert counted is None
            views, labels_of_views = look(records, jax.random.key(7))
            told = supervision.targets(supervision.arrays, Views(
                views, labels_of_views, records, jnp.int32(epoch), None))
            for place, record in enumerate(np.asarray(records)):
                if record >= 36:
                    new += 1
                    seen_rows.append(record - 36)
                    np.testing.assert_array_equal(told[place], own[record - 36])
                    continue
                batch, at = divmod(int(record), 6)
                seen_rows.append(int(whole[batch].rows[at]))
                seen_records.add(int(record))
                np.testing.assert_allclose(views[place], shown[batch, at], atol=2e-4)
                np.testing.assert_allclose(told[place], labels[batch, at], atol=1e-6)
        assert sorted(seen_rows) == list(range(12))
    assert len(seen_records) == 36 and abs(new / 480 - plain) < 0.08


def test_stores_without_single_views_are_refused(tmp_path):
    right = dict(kept="draws", mixing="none")
    for i, (changes, words) in enumerate((
            ({"kept": "key"}, "keeps draws"), ({"mixing": "cutmix@1.0"}, "mixes nothing"),
            ({"pruned": 0.5}, "is not pruned"), ({"batch_size": 5, "epochs": 2}, None),
            ({"batch_size": 7}, None))):
        store = stored.store_at(tmp_path / f"{i}.safetensors", **{**right, **changes})
        replayed = replay(store, stored.distilled(), epochs=2, order="pool")
        if words is None:
            assert by_image(replayed).records.shape == (12, store.description["views"]["epochs"])
            continue
        with pytest.raises(ConfigError, match=words):
            by_image(replayed)
    with pytest.raises(ConfigError, match="plain is 2"):
        by_image(replayed, plain=2)


# HeLlO.


@pytest.mark.parametrize("norm", [None, "batch"])
def test_a_projector_begins_at_its_prior_and_trains_its_changes_alone(norm):
    encoder, prior = stored.teacher(3, norm)
    features = encoder.apply(prior, images()).features
    means = class_prototypes(features, jnp.arange(12) % 5, 5)
    plain = np.stack([np.asarray(features)[np.arange(12) % 5 == k].mean(axis=0) for k in range(5)])
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(means, plain, atol=1e-5)
    light = projector(encoder, prior, means, rank=2, head_rank=3)
    variables = light.init(jax.random.key(0))
    np.testing.assert_allclose(light.apply(variables, images()).logits, features @ plain.T,
                               atol=1e-4)
    weak = [stored.teacher(0), stored.teacher(1)]
    own, supervision = jnp.eye(5)[jnp.arange(12) % 5], logits_and_labels(weak, weight=0.1)

    def error(variables):
        told = mean_logits(weak, images())
        return float(((light.apply(variables, images()).logits - told) ** 2).mean())

    fitted = jax.jit(lambda: fit(
        light, variables, take=rows_of(images(), own), batches=permuted_epochs(12, 12, 200),
        optimizer=optax.adam(0.01), key=jax.random.key(1), supervision=supervision))().variables
    assert error(fitted) < 0.5 * error(variables)
    for name in ("prior", "prototypes"):
        jax.tree.map(np.testing.assert_array_equal, fitted[name], variables[name])
    kept = stored_projector(fitted)
    assert sum(x.nbytes for x in jax.tree.leaves(kept)) == projector_bytes(fitted)
    back = light.apply(restored_projector(kept, prior), images()).logits
    wanted = light.apply(fitted, images()).logits
    np.testing.assert_allclose(back, wanted, atol=2e-2 * float(jnp.abs(wanted).max()))
    told = teacher(light, fitted).targets(fitted, Views(images(), None, None, None, None))
    np.testing.assert_allclose(told, softmax(np.asarray(wanted)), atol=1e-5)


def test_its_changes_are_products_of_two_thin_matrices():
    encoder, prior = stored.teacher(3, "instance")
    length = encoder.apply(prior, images()).features.shape[1]
    light = projector(encoder, prior, jnp.ones((5, length)), rank=2)
    variables = light.init(jax.random.key(0))
    changed = {**variables, "params": jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape), variables["params"])}
    by_hand = jax.tree.map(np.array, prior)
    names = [name for name in changed["params"] if name != "head"]
    assert names and all(not name.startswith("head") for name in names)
    for name in names:
        place = by_hand["params"]
        *folders, last = name.split(".")
        for folder in folders:
            place = place[folder]
        change = changed["params"][name]
        assert change["a"].shape[1] == min(2, *change["a"].shape, *change["b"].shape)
        place[last] = place[last] + np.reshape(
            np.asarray(change["a"]) @ np.asarray(change["b"]), place[last].shape)
    features = np.asarray(encoder.apply(by_hand, images()).features)
    head = np.ones((features.shape[1], 5)) + np.asarray(
        changed["params"]["head"]["a"] @ changed["params"]["head"]["b"])
    found = light.apply(changed, images()).logits
    np.testing.assert_allclose(found, features @ head, rtol=2e-3, atol=1e-2)


def test_squares_and_classes_is_its_formula():
    rng = np.random.default_rng(0)
    z, told, own = rng.normal(size=(2, 4, 5)).tolist(), rng.normal(size=(4, 5)), np.eye(5)[:4]
    z = np.asarray(z[0])
    wanted = ((z - told) ** 2).mean(axis=1) - 0.3 * (own * np.log(softmax(z))).sum(axis=1)
    found = SquaresAndClasses(0.3)(jnp.asarray(z), LogitsAndLabels(jnp.asarray(told),
                                                                   jnp.asarray(own)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_projectors_that_cannot_be_are_refused():
    encoder, prior = stored.teacher(3)
    with pytest.raises(ConfigError, match="head_rank is 6"):
        projector(encoder, prior, jnp.ones((5, 8)), head_rank=6)
    with pytest.raises(ConfigError, match="rank is 0"):
        projector(encoder, prior, jnp.ones((5, 8)), rank=0)
    light = projector(encoder, prior, jnp.ones((5, 7)), rank=1)
    with pytest.raises(ConfigError, match="prototypes have length 7"):
        light.apply(light.init(jax.random.key(0)), images())
    with pytest.raises(ConfigError, match="has an image"):
        class_prototypes(jnp.ones((2, 3)), jnp.array([0, 0]), 2)
    with pytest.raises(ConfigError, match="no teacher"):
        logits_and_labels([])
    with pytest.raises(ConfigError, match="weight is -1"):
        logits_and_labels([stored.teacher()], weight=-1)
