"""CCFS: which real images join a distilled set, in what order, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import dd_jax as dd
from dd_jax.data import from_arrays, standardise
from dd_jax.distill import curriculum_needs
from dd_jax.errors import ConfigError, DataError, SetFileError
from dd_jax.select.dynamic_scores import forgetting
from dd_jax.store import DistilledSet
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.types import SyntheticSet
from tests.laws import members
from tests.methods import tiny
from tests.methods.tiny import made


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Five images of each class, labels mixed, in a model space of their own."""
    toy = members.toy_data()
    normaliser, rows = standardise(toy), np.arange(63, 53, -1)
    images = dd.data.normalise(normaliser, toy.images[rows])
    labels = np.full((10, 2), 0.3, np.float32)
    labels[np.arange(10), np.asarray(toy.labels)[rows]] = 0.7
    path = tmp_path_factory.mktemp("sets") / "set.safetensors"
    dd.save(path, DistilledSet(SyntheticSet(np.asarray(images), labels), normaliser,
                               "probabilities", toy.spec))
    return path


def settings(**changes):
    return {**dict(ipc=8, distilled_share=0.25, network_epochs=3), **changes}


def test_distilled_images_are_the_first_of_the_file_and_real_ones_follow(store, file):
    toy = members.toy_data()
    found = made("ccfs", store, **settings(distilled=str(file)))
    labels, images = found.synthetic.labels, dd.store.as_numpy(found)["images_unit"]
    assert found.label_kind == "classes" and labels.tolist() == sorted(labels.tolist())
    real = np.asarray(toy.images, np.float64) / 255
    rows = np.asarray(found.recipe["rows"])
    assert len(set(rows.tolist())) == len(rows) == len(labels) - 4
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        first = [row for row in range(63, 53, -1) if toy.labels[row] == label][:2]
        joined = [*first, *(row for row in rows if toy.labels[row] == label)]
        np.testing.assert_allclose(images[own], real[joined], atol=1e-5)
    assert found.recipe["empty_places"] == 12 - len(rows) and found.ipc == len(labels) / 2
    assert found.stored_bytes == len(labels) * (64 * 4 + 4)


def test_rounds_are_those_of_a_slow_curriculum(store, file, monkeypatch):
    """With networks that say what they are told to, and all else as it is."""
    rng = np.random.default_rng(0)
    toy, said, sizes = members.toy_data(), rng.normal(size=(3, 64, 2)).astype(np.float32), []
    calls = iter(said)

    def train(self, images, labels, classes, by, key):
        sizes.append(len(images))

    monkeypatch.setattr(curriculum_needs.Filter, "train", train)
    monkeypatch.setattr(curriculum_needs, "network_logits", lambda *args, **more: next(calls))
    plan = tiny.plan("ccfs", **settings(distilled=str(file), ipc=10, filter_seed=7))
    need = plan.needs["curriculum"]
    found = store.get(need, toy, show_progress=False)
    teacher, dynamics = (store.get(need.needs[name], toy) for name in ("logits", "dynamics"))
    labels, hard = np.asarray(toy.labels), forgetting(dynamics)
    taken, wanted = set(), [[], []]
    for said_now, size in zip(said, (3, 3, 2)):
        able = [row for row in range(64) if row not in taken
                and teacher[row].argmax() == labels[row] != said_now[row].argmax()]
        for label in (0, 1):
            rows = sorted((row for row in able if labels[row] == label), key=hard.__getitem__)
            taken |= set(rows[:size])
            wanted[label] += [*rows[:size], *[-1] * (size - len(rows[:size]))]
    assert found.tolist() == wanted and sizes[0] == 4
    assert sizes[1] == 4 + (found[:, :3] >= 0).sum()


def test_it_goes_on_after_its_last_whole_round(store, file, monkeypatch, tmp_path):
    wanted = made("ccfs", store, **settings(distilled=str(file))).recipe["rows"]
    other, real, calls = ArtefactStore(tmp_path), curriculum_needs.Filter.train, []

    def stops(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(curriculum_needs.Filter, "train", stops)
    with pytest.raises(KeyboardInterrupt):
        made("ccfs", other, **settings(distilled=str(file)))
    assert made("ccfs", other, **settings(distilled=str(file))).recipe["rows"] == wanted
    assert len(calls) == 4  # three rounds, one of them begun twice


def test_images_on_the_host_are_chosen_alike_beside_a_file(store, file, tmp_path):
    toy = members.toy_data()
    host = dataclasses.replace(toy, images=np.asarray(toy.images))
    rows = [made("ccfs", where, data, **settings(distilled=str(file))).recipe["rows"]
            for where, data in ((store, toy), (ArtefactStore(tmp_path), host))]
    assert rows[0] == rows[1]


def test_what_a_file_holds_is_what_counts_and_not_where_it_is(store, file, tmp_path):
    copy = tmp_path / "other.safetensors"
    copy.write_bytes(file.read_bytes())
    addresses = [tiny.plan("ccfs", **settings(distilled=str(path))).needs["curriculum"].address(
        members.toy_data()) for path in (file, copy)]
    assert addresses[0] == addresses[1]
    other = tiny.plan("ccfs", **settings(distilled=str(file), supervision="labels"))
    assert other.needs["curriculum"].address(members.toy_data()) != addresses[0]


def test_without_a_file_random_real_images_are_there_once(store):
    found = made("ccfs", store, **settings())
    toy, rows = members.toy_data(), found.recipe["rows"]
    random = made("random", store, ipc=2).recipe["rows"]
    assert not set(rows) & set(random)
    images = dd.store.as_numpy(found)["images_unit"]
    both = [row for label in (0, 1) for part in (random, rows) for row in part
            if toy.labels[row] == label]
    np.testing.assert_allclose(images, np.asarray(toy.images)[both] / 255, atol=1e-5)


def test_one_image_of_a_class_is_a_distilled_one(store, file):
    found = made("ccfs", store, distilled=str(file))
    assert found.recipe["rows"] == [] and found.ipc == 1
    assert "curriculum" not in tiny.plan("ccfs", distilled=str(file)).needs


@pytest.mark.parametrize("changes,error,said", [
    (dict(distilled="nowhere.safetensors"), SetFileError, "nowhere"),
    (dict(ipc=30), DataError, "has 5 images of class 0, expected at least 7"),
    (dict(ipc=33), DataError, "toy has 64 images, and 66 are asked for"),
    (dict(share=0.1), ConfigError, "share is 0.1"), (dict(rounds=0), ConfigError, "rounds is 0"),
    (dict(within="set"), ConfigError, "within is 'set'"),
    (dict(difficulty="c_score"), ConfigError, "'c_score'"),
    (dict(network_epochs=1), ConfigError, "forgetting of 1 epoch"),
    (dict(temperature=0.0), ConfigError, "temperature is 0"),
    (dict(supervision="both"), ConfigError, "'both'"), (dict(area=2.0), ConfigError, "area is 2"),
], ids=str)
def test_what_cannot_be_is_refused_before_anything_is_made(file, changes, error, said):
    with pytest.raises(error, match=said):
        tiny.plan("ccfs", **settings(**{"distilled": str(file), **changes}))


def test_a_set_of_other_data_is_refused(file):
    other = from_arrays(np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 4, name="four")
    with pytest.raises(ConfigError, match="was distilled from toy, which has other images"):
        tiny.plan("ccfs", other, **settings(distilled=str(file)))
