"""Evaluation: against scikit-learn, against itself mapped otherwise, and refusals."""

from __future__ import annotations

import dataclasses
import warnings

import jax
import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import dd_jax as dd
from dd_jax import evaluate as ev
from dd_jax.data import from_arrays, load_embedded, split_of
from dd_jax.errors import ConfigError, DataError, SetFileError
from dd_jax.evaluate import protocol
from dd_jax.store import as_numpy
from dd_jax.synthetic import Labels, targets


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


def packaged(data, tiny_like, images, classes, **changes):
    """A distilled set that holds the given real images."""
    recipe = dataclasses.replace(tiny_like, **changes)
    wanted = targets(np.asarray(classes), data.spec.num_classes, kind=recipe.labels.kind)
    return dd.distill.package(recipe, dd.SyntheticSet(images, wanted), data)


def test_accuracy_agrees_with_scikit_learn(embedded):
    """The same small MLP, trained by another library on the exported arrays."""
    train = embedded.train
    rows = np.asarray(train.class_rows[:, :20]).reshape(-1)
    recipe = dd.methods.recipe("dm", train, protocol="cpu")
    images = dd.data.normalise(recipe.normaliser, train.images[rows])
    distilled = packaged(train, recipe, images, train.labels[rows])
    adam = protocol("mlp", network="mlp", width=64, optimizer="adam", learning_rate=1e-3,
                    schedule="constant", epochs=80, batch_size=50)
    ours = ev.evaluate(distilled, embedded.test, protocol=adam, key=jax.random.key(0), seeds=3)

    exported = as_numpy(distilled)
    x = exported["images"].reshape(len(rows), -1)
    test = np.asarray(embedded.test.images, np.float64) / 255
    test = (test - exported["normaliser_mean"]) / exported["normaliser_std"]
    theirs = []
    for seed in range(3):
        model = MLPClassifier((64, 64), learning_rate_init=1e-3, batch_size=50, max_iter=80,
                              alpha=0.0, n_iter_no_change=1000, random_state=seed)
        with pytest.warns(match="Maximum iterations"):
            model.fit(x, exported["hard_labels"])
        theirs.append(model.score(test.reshape(len(test), -1), np.asarray(embedded.test.labels)))
    assert ours.mean > 0.6
    assert abs(ours.mean - np.mean(theirs)) < 0.03, (ours.accuracies, theirs)


@pytest.fixture(scope="module")
def small(embedded):
    """Ten real images a class of 14x14, train and test."""

    def shrink(part, count):
        rows = np.asarray(part.class_rows[:, :count]).reshape(-1)
        return from_arrays(np.asarray(part.images[rows])[:, ::2, ::2], part.labels[rows],
                           name="small", num_classes=10)

    return split_of(shrink(embedded.train, 20), shrink(embedded.test, 10))


KEY = jax.random.key(0)
TINY = protocol("tiny", depth=1, width=4, epochs=12, batch_size=16, schedule="constant",
                learning_rate=0.05)


def small_set(small, recipe_changes=None):
    recipe = dd.methods.recipe("dm", small, depth=2, width=4)
    rows = np.asarray(small.train.class_rows[:, :2]).reshape(-1)
    images = dd.data.normalise(recipe.normaliser, small.train.images[rows])
    return packaged(small.train, recipe, images, small.train.labels[rows],
                    **(recipe_changes or {}))


def test_mapped_and_vmapped_networks_agree(small):
    results = [
        ev.evaluate(small_set(small), small.test, protocol=TINY, key=jax.random.key(0), seeds=2,
                    how=how).accuracies
        for how in ("map", "vmap")
    ]
    np.testing.assert_allclose(results[0], results[1], atol=0.011)
    assert results[0].mean() > 0.25


def test_the_same_key_gives_the_same_figures(small):
    options = dict(protocol=TINY, key=jax.random.key(3), seeds=2)
    first, again = (ev.evaluate(small_set(small), small.test, **options) for _ in "ab")
    np.testing.assert_array_equal(first.accuracies, again.accuracies)


def test_random_and_full_baselines(small):
    normaliser = dd.data.standardise(small.train)
    common = dict(normaliser=normaliser, protocol=TINY, key=jax.random.key(0))
    random = ev.evaluate_random(small, ipc=2, seeds=3, **common)
    assert len(set(random.accuracies.tolist())) > 1  # another choice for each network
    protocol = TINY.varied(full_epochs=20, full_batch_size=32)
    full = ev.evaluate_full(small, **{**common, "protocol": protocol})
    assert full.mean > random.mean
    centred = ev.evaluate_random(small, ipc=2, seeds=2, label_kind="centred", **common)
    assert 0 <= centred.mean <= 1


def test_centred_outputs_are_used_in_testing_too(small):
    """Untrained, all centred outputs are zero, so every prediction is class 0."""
    protocol = TINY.varied(centre_outputs=True, output_scale=4.0, norm="none",
                                   init_style="gaussian", epochs=1, learning_rate=0.0,
                                   loss="mean_squared_error")
    options = dict(key=jax.random.key(0), seeds=1)
    untrained = ev.evaluate(small_set(small), small.test, protocol=protocol, **options)
    share = np.mean(np.asarray(small.test.labels) == 0)
    np.testing.assert_allclose(untrained.mean, share, atol=1e-6)
    trained = protocol.varied(epochs=60, learning_rate=0.3, pull=1e-4)
    assert ev.evaluate(small_set(small), small.test, protocol=trained, **options).mean > 0.3


def test_evaluation_as_a_call(small):
    result = dd.evaluate(small_set(small), small.test, protocol=TINY, key=jax.random.key(0),
                         seeds=1)
    assert len(result.accuracies) == 1 and result.std == 0


def selected(found, rows):
    synthetic = found.synthetic
    return dataclasses.replace(found, synthetic=synthetic._replace(
        images=synthetic.images[rows], labels=synthetic.labels[rows]))


def test_a_set_of_no_image_is_refused(small):
    options = dict(protocol=TINY, key=jax.random.key(0), seeds=1)
    with pytest.raises(ConfigError, match="the set has 0 images.*at least one"):
        ev.evaluate(selected(small_set(small), slice(0)), small.test, **options)
    nothing = dataclasses.replace(small.test, images=small.test.images[:0],
                                  labels=small.test.labels[:0])
    with pytest.raises(DataError, match="test data has 0 images"):
        ev.evaluate(small_set(small), nothing, **options)


def test_a_set_of_one_class_is_tested_with_a_warning(small):
    found = selected(small_set(small), slice(6, 8))  # both images of class 3
    with pytest.warns(UserWarning, match=r"largest for class 3 \(.*\): .*no other class"):
        result = ev.evaluate(found, small.test, protocol=TINY, key=jax.random.key(0), seeds=1)
    np.testing.assert_allclose(result.mean, 0.1, atol=1e-6)


def test_cross_entropy_on_centred_labels_is_refused(small):
    centred = small_set(small, {"labels": Labels("centred")})
    protocol = TINY.varied(loss="cross_entropy")
    with pytest.raises(ConfigError, match="centred"):
        ev.evaluate(centred, small.test, protocol=protocol, key=jax.random.key(0))


def test_other_data_is_refused(small, toy):
    with pytest.raises(SetFileError, match="shape"):
        ev.evaluate(small_set(small), toy, protocol=TINY, key=jax.random.key(0))
    fewer = from_arrays(np.asarray(small.test.images[:50]), small.test.labels[:50] % 5)
    with pytest.raises(SetFileError, match="classes"):
        ev.evaluate(small_set(small), fewer, protocol=TINY, key=jax.random.key(0))


def test_two_teachers_share_one_program_and_their_variables_are_its_arguments(small):
    """Networks that are told by a teacher learn from it and not from the set's labels."""
    network = dd.nets.mlp(small.train.spec, width=4)
    traced = []

    def apply(variables, images, train=False):
        traced.append(images.shape)
        return network.apply(variables, images, train)

    watched = network._replace(apply=apply)
    found = small_set(small)
    nothing = dataclasses.replace(found, synthetic=found.synthetic._replace(
        labels=np.roll(found.synthetic.labels, 1, axis=0)))
    options = dict(protocol=TINY, key=jax.random.key(0), seeds=1)

    def accuracy(distilled, class_):
        variables = network.init(jax.random.key(0))
        variables["params"]["head"]["bias"] = 50.0 * np.eye(10, dtype=np.float32)[class_]
        told = dd.labels.teacher(watched, variables)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ev.evaluate(distilled, small.test, supervision=told, **options).mean

    shares = [float(np.mean(np.asarray(small.test.labels) == c)) for c in (3, 7)]
    np.testing.assert_allclose(accuracy(found, 3), shares[0], atol=1e-6)
    calls = len(traced)
    assert calls > 0
    np.testing.assert_allclose(accuracy(nothing, 7), shares[1], atol=1e-6)
    assert len(traced) == calls  # neither traced nor compiled once more
    random = ev.evaluate_random(small, normaliser=found.normaliser, ipc=2,
                                supervision=dd.labels.teacher(watched, network.init(KEY)),
                                **options)
    assert 0 <= random.mean <= 1
