"""A training on a store sees the views and labels that were stored, or is refused beforehand."""

from __future__ import annotations

import dataclasses
import json
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax import evaluate
from dd_jax.backend import switches
from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.evaluate.replayed import settings_for
from dd_jax.labels import Views, draws, teacher
from dd_jax.labels.draws import drawn_for, show
from dd_jax.labels.losses import mean_squared_error
from dd_jax.labels.pruning import Decay
from dd_jax.store import open_views, replay, view_store
from dd_jax.store.view_store import views_of
from dd_jax.train import fit, rows_of
from tests.faults.mutate import spoilt_bytes, spoilt_json
from tests.labels import stored


def trained(replayed, epochs=3, supervision=None, weights=None, watch=None):
    synthetic = stored.distilled().trainable()
    network, _ = stored.teacher()
    arguments = replayed.arguments(rows_of(synthetic.images, synthetic.labels), epochs,
                                   jax.random.key(2), weights=weights)
    if supervision is not None:
        arguments["supervision"] = supervision
    return jax.jit(lambda: fit(network, network.init(jax.random.key(1)), key=jax.random.key(3),
                               optimizer=optax.sgd(0.1), **arguments))().variables


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.mark.parametrize("kept", ["key", "draws"])
@pytest.mark.parametrize("mixing", ["none", "cutmix@1.0", "mixup@0.8"])
def test_a_replay_trains_as_the_live_teacher_on_the_same_views(kept, mixing, tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", kept=kept, mixing=mixing,
                            options=(("dtype", "float32"),))
    replayed = replay(store, stored.distilled(), epochs=3, temperature=4.0)
    found = trained(replayed)
    close(found, trained(replayed, supervision=teacher(*stored.teacher(), temperature=4.0)),
          atol=1e-5)
    half = stored.store_at(tmp_path / "b.safetensors", kept=kept, mixing=mixing)
    close(found, trained(replay(half, stored.distilled(), epochs=3, temperature=4.0)), atol=1e-3)


def steps_of(replayed, epochs):
    """(records, images, targets) of every step."""
    synthetic = stored.distilled().trainable()
    arguments = replayed.arguments(rows_of(synthetic.images, synthetic.labels), epochs,
                                   jax.random.key(2))
    batches, supervision = arguments["batches"], arguments["supervision"]
    for epoch in range(epochs):
        shared = batches.begin(jax.random.key(epoch), epoch)
        for i in range(batches.steps):
            records, _ = batches.rows(shared, None, i)
            images, labels = arguments["views"](None, *arguments["take"](records))
            views = Views(images, labels, records, jnp.int32(epoch), None)
            yield np.asarray(records), images, supervision.targets(supervision.arrays, views)


def test_every_step_is_the_recorded_one_to_the_bit(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    rule, _, key = views_of(store)
    labels = view_store.read_views(store)["labels.values"]
    images = jnp.asarray(stored.distilled().synthetic.images)
    for number, (records, seen, told) in enumerate(steps_of(
            replay(store, stored.distilled(), epochs=3, temperature=2.0), 3)):
        assert records.tolist() == list(range(number * 6, number * 6 + 6))
        drawn = drawn_for(rule, key, number)
        np.testing.assert_array_equal(seen, show(rule, drawn, images[drawn.rows], None)[0])
        wanted = jax.nn.softmax(labels[number].astype(np.float32) / 2.0)
        np.testing.assert_allclose(told, wanted, atol=1e-6)


def test_a_pruned_store_is_a_pool_that_is_drawn_from_for_any_number_of_epochs(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", "pruned2")
    rule, _, key = views_of(store)
    kept = np.asarray(draws.pruned_batches(rule, key))
    assert len(kept) == 3 and rule.steps == 2
    images = jnp.asarray(stored.distilled().synthetic.images)
    taken = []
    for records, seen, _ in steps_of(replay(store, stored.distilled(), epochs=9), 9):
        taken.append(records[0] // 6)
        drawn = drawn_for(rule, key, kept[taken[-1]])
        np.testing.assert_array_equal(seen, show(rule, drawn, images[drawn.rows], None)[0])
    for first in range(0, 18, 3):
        assert sorted(taken[first:first + 3]) == [0, 1, 2]


def test_a_temperature_may_fall_with_the_epochs(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    labels = view_store.read_views(store)["labels.values"].astype(np.float32)
    falling = replay(store, stored.distilled(), epochs=3, temperature=Decay(8.0, 0.5, 1, 3.0))
    for number, (_, _, told) in enumerate(steps_of(falling, 3)):
        wanted = jax.nn.softmax(labels[number] / (8.0, 4.0, 3.0)[number // 2])
        np.testing.assert_allclose(told, wanted, atol=1e-6)


def test_weights_of_the_set_count_for_its_views(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", mixing="none")
    replayed = replay(store, stored.distilled(), epochs=3)
    close(trained(replayed), trained(replayed, weights=jnp.full((12,), 2.0)), atol=1e-6)
    none = trained(replayed, weights=jnp.zeros((12,)))
    close(none, stored.teacher()[0].init(jax.random.key(1)), atol=1e-7)


def wants_logits(logits, targets):
    return mean_squared_error(logits, targets)


wants_logits.targets = "logits"


def test_a_loss_of_logits_is_told_those_that_are_stored(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    labels = view_store.read_views(store)["labels.values"].astype(np.float32)
    for number, (_, _, told) in enumerate(steps_of(
            replay(store, stored.distilled(), epochs=3, loss=wants_logits), 3)):
        np.testing.assert_array_equal(told, labels[number])


@pytest.mark.parametrize("name,arguments,words", [
    ("full", {"epochs": 4}, "has 4 epochs, and the store has views of 3"),
    ("pruned2", {"order": "recorded"}, "its epochs have gaps"),
    ("full", {"order": "sorted"}, "order of stored views"),
    ("full", {"temperature": 0.0}, "temperature is 0"),
    ("full", {"student_temperature": -1.0}, "student_temperature is -1.0"),
    ("full", {"loss": "kl"}, "expected a function"),
    ("top3", {"temperature": 4.0}, "the store has probabilities at 1"),
    ("top3", {"loss": wants_logits}, "compares logits, and the store has probabilities"),
    ("mr3", {"loss": wants_logits}, "those of a few classes"),
    ("full", {"loss": wants_logits, "temperature": 2.0}, "takes plain logits")])
def test_trainings_that_the_store_cannot_serve_are_refused(name, arguments, words, tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", name)
    with pytest.raises(ConfigError, match=words):
        replay(store, stored.distilled(), **{"epochs": 3, **arguments})


@pytest.mark.parametrize("arguments,words", [
    ({"source": stored.distilled(1)}, "labels of another set"),
    ({"teachers": [stored.teacher(1)]}, "labels of other teachers"),
    ({"teachers": [stored.teacher(0), stored.teacher(1)]}, "other teachers"),
    ({"augmentation": "dsa"}, "views by augmentation 'inception', expected 'dsa'"),
    ({"mixing": "none"}, "views by mixing 'cutmix@1.0'")])
def test_stores_of_something_else_are_refused(arguments, words, tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    right = dict(source=stored.distilled(), teachers=[stored.teacher()], epochs=3,
                 augmentation="inception", mixing="cutmix@1.0")
    replay(store, **right)
    with pytest.raises(SetFileError, match=words):
        replay(store, **{**right, **arguments})


def described(store, **changes):
    """The same with another description, as its file could say with honest hashes."""
    said = json.loads(json.dumps(dict(store.description)))
    for name, value in changes.items():
        place, _, field = name.rpartition("__")
        (said[place] if place else said)[field] = value
    return dataclasses.replace(store, description=said)


@pytest.mark.parametrize("changes,words", [
    ({"views__rule_version": 2}, "version 2 of the rule"), ({"views": None}, "version None"),
    ({"codec": None}, "does not know|cannot be"), ({"key": [1, 2, 3]}, "cannot be"),
    ({"key": [1, 2]}, "drew other views"), ({"probe": []}, "drew other views"),
    ({"views__epochs": 4}, "other tensors than it says"), ({"views__epochs": 0}, "cannot be"),
    ({"views__more": 4}, "cannot be"), ({"views__images": 11}, "other tensors|for \\(images")])
def test_descriptions_that_do_not_hold_are_refused(changes, words, tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    with pytest.raises(SetFileError, match=words):
        replay(described(store, **changes), stored.distilled(), epochs=3)


def test_another_generator_of_random_numbers_is_found_out(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    other = not switches()["jax_threefry_partitionable"]
    with jax.threefry_partitionable(other):
        with pytest.raises(SetFileError, match="generator of random numbers drew other views"):
            replay(store, stored.distilled(), epochs=3)


def test_networks_are_tested_after_a_training_on_a_store(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", mixing="none", epochs=20)
    rng = np.random.default_rng(1)
    test = from_arrays(rng.integers(0, 256, (20, 8, 8, 1)).astype(np.uint8), np.arange(20) % 5,
                       name="five", num_classes=5)
    test = dataclasses.replace(test, spec=stored.SPEC)
    protocol = evaluate.protocol("t", network="mlp", depth=2, width=8, epochs=20, batch_size=6,
                                 augmentation="inception", seeds=2)
    replayed = replay(store, stored.distilled(), epochs=20)
    settings = settings_for("full", protocol)
    assert (settings.epochs, settings.batch_size, settings.mixing) == (20, 6, "none")
    assert view_store.plan_of(settings, stored.distilled()).rule == replayed.rule
    found = evaluate.evaluate(stored.distilled(), test, protocol=protocol, supervision=replayed)
    assert found.accuracies.shape == (2,) and (found.accuracies >= 0).all()
    for changes, words in (({"augmentation": "dsa"}, "augments by 'dsa'"),
                           ({"cutmix": 0.5}, "has cutmix 0.5"), ({"epochs": 21}, "has 21 epochs"),
                           ({"order": "stored", "schedule": "constant"}, "in order 'stored'")):
        with pytest.raises(ConfigError, match=words):
            evaluate.evaluate(stored.distilled(), test, protocol=protocol.varied(**changes),
                              supervision=replayed)


def test_an_opened_store_is_the_one_that_was_made(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors")
    assert open_views(store.path) == store


def test_spoilt_files_end_in_typed_errors(tmp_path):
    store = stored.store_at(tmp_path / "a.safetensors", "quant3store", kept="draws")
    raw = store.path.read_bytes()
    for seed in range(150):
        rng = random.Random(seed)
        store.path.write_bytes(spoilt_bytes(rng, raw, [raw]))
        try:
            view_store.read_views(open_views(store.path))
        except SetFileError as error:
            assert str(store.path) in str(error) or error.fix
    for seed in range(60):
        text = spoilt_json(random.Random(seed), json.loads(json.dumps(dict(store.description))))
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        store.path.write_bytes(raw)
        if isinstance(said, dict):
            try:
                replay(dataclasses.replace(store, description=said), stored.distilled(), epochs=3)
            except SetFileError:
                continue
