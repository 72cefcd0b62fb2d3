"""Teachers as artefacts, what they should reach, and whom they may teach."""

from __future__ import annotations

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import evaluate, nets
from dd_jax.data import identity, normalise, standardise
from dd_jax.distill import teachers
from dd_jax.distill.expected import EXPECTED, expected
from dd_jax.distill.taught import (
    check_accuracy,
    check_protocol,
    check_teacher,
    members_of,
    taught,
)
from dd_jax.distill.teachers import KIND, Teacher, Training, stored_teacher, teacher
from dd_jax.errors import CheckpointError, ConfigError, DataError
from dd_jax.evaluate import protocol
from dd_jax.labels import Views
from dd_jax.labels.losses import parse
from dd_jax.run.networks import STATE
from dd_jax.store import DistilledSet
from dd_jax.store.artefacts import MANIFEST, ArtefactStore
from dd_jax.synthetic import targets
from dd_jax.types import DataSpec, Split, SyntheticSet
from tests.laws import members

PLAN = dict(width=4, depth=1, epochs=3, batch_size=16, augmentation="shift")
MLP = protocol("t", network="mlp", width=8, depth=1, epochs=60, batch_size=8, seeds=2,
               learning_rate=0.05, norm="none")


@pytest.fixture(scope="module")
def data():
    toy = members.toy_data()
    return Split(toy, toy)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ArtefactStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def made(data, store):
    return store.get(teacher("convnet", data, **PLAN), data.train, show_progress=False)


def a_set(data, **changes):
    """Eight real images whose labels are wrong."""
    images = normalise(standardise(data.train), data.train.images[:8])
    labels = targets(1 - data.train.labels[:8], 2, kind="one_hot")
    fields = dict(synthetic=SyntheticSet(np.asarray(images), np.asarray(labels)),
                  normaliser=standardise(data.train), label_kind="one_hot", spec=data.train.spec)
    return DistilledSet(**{**fields, **changes})


def test_it_is_trained_tested_and_found_again(made, data, store):
    images = normalise(standardise(data.train), data.test.images)
    logits = made.network.apply(made.variables, images).logits
    assert made.accuracy == pytest.approx(np.mean(np.argmax(logits, 1) == data.test.labels))
    assert made.accuracy > 0.9 and made.name == "convnet" and made.spec == data.train.spec
    assert "batch_stats" in made.variables
    asked = teacher("convnet", data, **PLAN)
    again = store.get(asked, data.train)
    assert store.report[-1].how == "reused" and again.accuracy == made.accuracy
    jax.tree.map(np.testing.assert_array_equal, again.variables, made.variables)
    folder = store.folder / f"{KIND}-{asked.address(data.train)}"
    assert not (folder / STATE).exists()
    like = asked.stand_in()
    assert jax.tree.structure(like.variables) == jax.tree.structure(made.variables)


def test_an_address_says_what_made_it(data):
    def address(name="convnet", **changes):
        return teacher(name, data, **{**PLAN, **changes}).address(data.train)

    base = address()
    assert base == address(norm="batch") == address(normaliser=standardise(data.train))
    others = [address(seed=1), address(width=2), address(epochs=4), address(batch_size=8),
              address(learning_rate=0.2), address(augmentation="none"), address(cutmix=0.5),
              address(norm="instance"), address(normaliser="none"), address(optimizer="adamw")]
    assert len({base, *others}) == 11
    half = dataclasses.replace(data.test, images=data.test.images[:32],
                               labels=data.test.labels[:32])
    assert teacher("convnet", Split(data.train, half), **PLAN).address(data.train) != base


def test_usual_trainings_are_those_of_the_network(data):
    def plan(name, split=data, **changes):
        return Training(**teacher(name, split, **changes).settings["training"])

    assert plan("resnet18", width=2) == Training()
    assert plan("vit_tiny", width=8).optimizer == "adamw"
    assert plan("mlp", width=8, epochs=2).learning_rate == 0.05
    digits = dataclasses.replace(
        data.train, spec=dataclasses.replace(data.train.spec, name="mnist"))
    assert plan("resnet18", Split(digits, digits), width=2).augmentation == "shift"
    assert teacher("mlp", data, width=8).settings["options"] == {"width": 8}


@pytest.mark.parametrize("call,message", [
    (dict(name="convne"), "did you mean 'convnet'"), (dict(name=3), "unknown network '?3"),
    (dict(name="vit_tiny", norm="batch"), "vit_tiny has no norm"),
    (dict(name="resnet18", depth=3), "resnet18 has no depth"),
    (dict(epochs=0), "epochs is 0"), (dict(epoch=3), "did you mean 'epochs'"),
    (dict(augmentation="flip"), "augmentation of a teacher"), (dict(cutmix=2.0), "cutmix is 2"),
    (dict(learning_rate=-1.0), "learning_rate is -1"), (dict(optimizer="sdg"), "'sgd'"),
    (dict(normaliser="zcaa"), "zca"), (dict(normaliser=3), "normaliser is 3"),
    (dict(width=0), "width is 0"), (dict(norm="bach"), "batch"),
], ids=str)
def test_what_cannot_be_is_refused_before_anything_is_trained(data, call, message):
    with pytest.raises(ConfigError, match=message):
        teacher(**{"name": "convnet", "data": data, **call})


def test_data_that_cannot_test_are_refused(data):
    with pytest.raises(ConfigError, match="data is a RealData"):
        teacher("mlp", data.train)
    none = dataclasses.replace(data.test, images=data.test.images[:0], labels=data.test.labels[:0])
    with pytest.raises(DataError, match="0 images"):
        teacher("mlp", Split(data.train, none))


def test_a_teacher_that_was_never_written_is_made_again(data, tmp_path, monkeypatch):
    """What a kill before the file is there leaves is made to the same."""
    asked, kept = teacher("mlp", data, width=4, epochs=2), teachers.write_arrays
    store, other = ArtefactStore(tmp_path / "a"), ArtefactStore(tmp_path / "b")

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(teachers, "write_arrays", killed)
    with pytest.raises(KeyboardInterrupt):
        store.get(asked, data.train, show_progress=False)
    monkeypatch.setattr(teachers, "write_arrays", kept)
    found, whole = (s.get(asked, data.train, show_progress=False) for s in (store, other))
    jax.tree.map(np.testing.assert_array_equal, found.variables, whole.variables)


def test_one_is_found_by_its_name_whatever_data_made_it(made, data, store, tmp_path):
    name = f"{KIND}-{teacher('convnet', data, **PLAN).address(data.train)}"
    for asked in (name, name.partition("-")[2]):
        found = stored_teacher(store, asked)
        assert (found.name, found.accuracy, found.normaliser) == (
            made.name, made.accuracy, made.normaliser)
        assert found.spec == data.train.spec
        jax.tree.map(np.testing.assert_array_equal, found.variables, made.variables)
    for asked in ("tested_teacher-" + "0" * 24, "0" * 24, "../x", "train"):
        with pytest.raises(CheckpointError, match="holds no artefact"):
            stored_teacher(store, asked)
    features = dd.distill.needs.arrays("features", {}, lambda data, key: np.zeros(2, np.float32),
                                       lambda: jax.ShapeDtypeStruct((2,), np.float32))
    store.get(features, data.train)
    with pytest.raises(ConfigError, match="is no tested_teacher"):
        stored_teacher(store, f"features-{features.address(data.train)}")


@pytest.mark.parametrize("change", [
    {"name": "convne"}, {"options": {"width": "x"}}, {"options": {"init_style": "torch"}},
    {"shape": [8, 8]}, {"classes": []}, {"classes": [1, 2]}, {"normaliser": 3}, {"options": 3},
], ids=str)
def test_a_manifest_of_anybody_is_checked(change, made, data, store, tmp_path):
    import shutil

    from dd_jax.store.envelope import sealed

    name = f"{KIND}-{teacher('convnet', data, **PLAN).address(data.train)}"
    shutil.copytree(store.folder / name, tmp_path / name)
    manifest = json.loads((tmp_path / name / MANIFEST).read_text())
    manifest.pop("sha256")
    manifest["identity"]["settings"] |= change
    (tmp_path / name / MANIFEST).write_bytes(sealed(manifest))
    with pytest.raises((CheckpointError, ConfigError)):
        stored_teacher(ArtefactStore(tmp_path), name)


def test_every_bound_is_above_chance_and_known_networks_have_one():
    for name, bounds in EXPECTED.items():
        classes = 100 if name == "cifar100" else 10
        assert set(bounds) <= {"", *nets.NETWORKS}
        for network in nets.NETWORKS:
            assert 1.5 / classes < expected(network, name, classes)[0] < 1
    assert expected("mlp", "own", 2)[0] == pytest.approx(0.65)
    assert expected("mlp", "svhn_cropped", 10) == (0.75, "the bound of mlp on svhn")


def test_an_under_trained_teacher_is_named_with_what_it_should_reach(made):
    weak = made._replace(accuracy=0.6)
    with pytest.warns(UserWarning, match="convnet classifies 60.0 % .* expected 65.0 %.*2 classes"):
        check_accuracy(weak)
    with pytest.raises(ConfigError, match="expected 65.0 %"):
        check_accuracy(weak, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_accuracy(made, strict=True)


def test_a_teacher_of_other_data_is_refused(made, data):
    spec, normaliser = data.train.spec, standardise(data.train)
    check_teacher(made, spec, normaliser)
    called = made._replace(spec=dataclasses.replace(spec, class_names=("a", "b")))
    for shape, names, message in [
            ((9, 8, 1), ("a", "b"), r"shape \(8, 8, 1\), the set's are \(9, 8, 1\)"),
            (spec.shape, ("a", "b", "c"), "trained on 2 classes, the set has 3"),
            (spec.shape, ("b", "a"), "classes in another order"),
            (spec.shape, ("c", "d"), "that are called otherwise")]:
        with pytest.raises(ConfigError, match=message):
            check_teacher(called, DataSpec("x", shape, len(names), names), normaliser)
    with pytest.warns(UserWarning, match="not called as those of the set"):
        check_teacher(called, spec, normaliser)
    with pytest.raises(ConfigError, match="another normaliser than the set's.*--teacher train"):
        check_teacher(made, spec, identity(spec.shape))


@pytest.mark.parametrize("changes,message", [
    (dict(loss="squared_error"), "squared error.*loss='auto'"),
    (dict(loss="mean_squared_error"), "mean squared error"),
    (dict(output_scale=2.0), "output_scale=2"), (dict(centre_outputs=True), "centre_outputs"),
], ids=str)
def test_protocols_that_cannot_follow_are_refused(changes, message, made, data):
    by = MLP.varied(**changes)
    with pytest.raises(ConfigError, match=message):
        check_protocol(by)
    with pytest.raises(ConfigError, match=message):
        taught(a_set(data), [made], loss=parse("kl@4"), protocols=[MLP, by])
    check_protocol(MLP.varied(cutmix=0.5))
    check_protocol(MLP.varied(mixup=0.5, loss="free_cross_entropy"))


def test_students_are_told_by_the_teacher_and_not_by_the_labels(made, data):
    told = taught(a_set(data), [made], loss=parse("kl@4"), protocols=[MLP], strict=True)
    by_labels = evaluate(a_set(data), data.test, protocol=MLP, key=0)
    by_teacher = evaluate(a_set(data), data.test, protocol=MLP.varied(cutmix=0.5), key=0,
                          supervision=told)
    assert by_labels.mean < 0.3 and by_teacher.mean > 0.7


def test_a_committee_of_artefacts(made, data):
    seen = Views(normalise(standardise(data.train), data.train.images[:5]), None, None, None, None)
    other = made._replace(variables=jax.tree.map(lambda x: 0.5 * x, made.variables))
    told = taught(a_set(data), [made, other], loss=parse("kl@2"))
    z = [np.asarray(network.apply(variables, seen.images).logits, np.float64)
         for network, variables in members_of([made, other])]
    shares = [np.exp(x / 2) / np.exp(x / 2).sum(1, keepdims=True) for x in z]
    found = np.asarray(told.targets(told.arrays, seen), np.float64)
    found = np.exp(found / 2) / np.exp(found / 2).sum(1, keepdims=True)  # as the loss does
    np.testing.assert_allclose(found, (shares[0] + shares[1]) / 2, rtol=1e-4, atol=1e-6)
    logits = taught(a_set(data), [made, other], loss=parse("kl@2"), average="logits")
    np.testing.assert_allclose(logits.targets(logits.arrays, seen), (z[0] + z[1]) / 2, rtol=1e-4,
                               atol=1e-5)


def test_there_has_to_be_somebody_who_tells_classes(made, data):
    with pytest.raises(ConfigError, match="there is no teacher"):
        taught(a_set(data), [], loss=parse("kl"))
    blank = a_set(data, label_kind="representations")
    with pytest.raises(ConfigError, match="holds representations"):
        taught(blank, [made], loss=parse("kl"))
    assert isinstance(made, Teacher)
