"""Selections as methods: files of real images, shared artefacts, budgets, and starts."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods
from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError, DataError
from dd_jax.methods.families.selection import OfDynamics, Selection
from dd_jax.select import OF_FEATURES, looks
from dd_jax.store.artefacts import ArtefactStore
from tests.laws import members
from tests.methods import tiny
from tests.methods.tiny import made

ALL = [name for name in methods.METHODS if issubclass(methods.METHODS[name].settings, Selection)]
# Of unchanged images: PCA's are pasted into grids, CCFS adds to distilled ones; see their tests.
NAMES = [name for name in ALL if name not in ("pca", "ccfs")]
WEIGHING = {"craig", "cw_erm", "grad_match"}


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_the_real_images_that_it_says(name, store, tmp_path):
    toy, found = members.toy_data(), made(name, store, ipc=3)
    dd.save(tmp_path / "set.safetensors", found)
    again = dd.load(tmp_path / "set.safetensors")
    rows = np.asarray(again.recipe["rows"])
    assert len(set(rows.tolist())) == 6 and again.ipc == 3 and again.label_kind == "classes"
    np.testing.assert_array_equal(again.synthetic.images, np.asarray(toy.images)[rows])
    np.testing.assert_array_equal(again.synthetic.labels, np.asarray(toy.labels)[rows])
    if methods.METHODS[name].settings.within == "class":
        np.testing.assert_array_equal(again.synthetic.labels, [0, 0, 0, 1, 1, 1])
    weighs = again.synthetic.weights is not None
    assert not weighs or name in WEIGHING
    assert again.stored_bytes == again.cost_bytes.total == 6 * (64 + 4 + 4 * weighs)


def test_networks_are_trained_once_for_all_selections(store):
    for name in NAMES:
        for ipc in (1, 2):
            made(name, store, ipc=ipc)
    kinds = [entry.split("-")[0] for entry, how, _ in store.report if how == "made"]
    for kind in ("dynamics", "teacher", "features", "gradients"):
        assert kinds.count(kind) == 1
    plans = [tiny.plan(name) for name in NAMES]
    addresses = {plan.needs["chosen"].address(members.toy_data()) for plan in plans}
    assert len(addresses) == len(NAMES)


@pytest.mark.parametrize("changes,counts", [
    (dict(share=0.25), [8, 8]), (dict(total=5), [3, 2]), (dict(total=5, within="set"), None),
], ids=["share", "total", "in the set"])
def test_budgets(changes, counts, store):
    found = made("random", store, **changes)
    size = len(found.synthetic.images)
    held = np.bincount(found.synthetic.labels, minlength=2)
    assert held.tolist() == counts if counts else held.sum() == 5
    assert found.ipc == size / 2
    settings = methods.preset("random", "cpu", 1, **changes)
    assert settings.images_per_class(members.toy_data()) == size / 2
    # The preset's test is as long for classes of unequal size.
    usual = made("random", store, **changes, evaluation_epochs=None).evaluation
    assert usual["plan"]["epochs"] == 1000


def test_unequal_classes(store):
    labels = np.repeat([0, 1, 2], [2, 5, 30])
    images = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 1), np.uint8)
    data = from_arrays(images, labels)
    with pytest.raises(DataError, match="class 0 .0. has 2 images.*short='fewer'"):
        tiny.plan("herding", data, ipc=4)
    for short, counts in (("fewer", [2, 4, 4]), ("others", [2, 5, 5])):
        found = made("herding", store, data, ipc=4, short=short)
        assert np.bincount(found.synthetic.labels).tolist() == counts


@pytest.mark.parametrize("name,changes,told", [
    ("random", dict(share=0.0), "share is 0.0"), ("random", dict(share=1.5), "share is 1.5"),
    ("herding", dict(total=3, share=0.5), "total and share"),
    ("herding", dict(features="pixel"), "'pixel'"), ("k_center", dict(first="last"), "'last'"),
    ("forgetting", dict(network_epochs=1), "forgetting of 1 epoch"),
    ("el2n", dict(until=3), "until is 3, and networks are trained for 2"),
    ("cartography", dict(until=1), "variability of 1 epoch"),
    ("margin", dict(order="hardest"), "'hardest'"), ("moderate", dict(within="all"), "'all'"),
    ("random", dict(short="fill"), "'fill'"), ("dq", dict(bins=0), "bins is 0"),
    ("grad_match", dict(ridge=-1.0), "ridge is -1"), ("grand", dict(gradient="none"), "'none'"),
    ("influence_distillation", dict(held_out=2.0), "held_out is 2"),
    ("influence_distillation", dict(landmarks=0), "landmarks is 0"),
    ("archaeology", dict(suite="random_inputs"), "'random_inputs', which is not planted"),
    ("archaeology", dict(suite="typicle"), "'typicle'"),
    ("archaeology", dict(order="middle"), "'middle'"),
    ("archaeology", dict(neighbours=0), "neighbours is 0"),
    ("cal", dict(among="klass"), "'klass'"), ("cal", dict(towards="both"), "'both'"),
    ("deepfool", dict(max_steps=0), "max_steps is 0"), ("deepfool", dict(order="near"), "'near'"),
    ("robust_active", dict(wrong=1.0), "wrong is 1.*all answers"),
    ("robust_active", dict(until=3), "until is 3, and networks are trained for 2"),
], ids=str)
def test_settings_that_cannot_be_are_refused_before_anything_is_made(name, changes, told):
    with pytest.raises(ConfigError, match=told):
        tiny.plan(name, **changes)


class Asked(np.ndarray):
    """Images on the host that note how many of them were asked for together."""

    most = 0

    def __getitem__(self, at):
        if isinstance(at, np.ndarray):
            Asked.most = max(Asked.most, len(at))
        return super().__getitem__(at)


@pytest.fixture(scope="module")
def elsewhere(store):
    """Another store, for what is made of the same data on the host."""
    return ArtefactStore(store.folder.parent / "host")


@pytest.mark.parametrize("name", ALL)
def test_images_on_the_host_are_chosen_alike_block_by_block(name, store, elsewhere, monkeypatch):
    toy = members.toy_data()
    host = dataclasses.replace(toy, images=np.asarray(toy.images).view(Asked))
    wanted = made(name, store, ipc=2)
    monkeypatch.setattr(looks, "block_rows", lambda data: 16)
    monkeypatch.setattr(Asked, "most", 0)
    found = made(name, elsewhere, host, ipc=2)
    assert found.recipe["rows"] == wanted.recipe["rows"]
    np.testing.assert_allclose(found.synthetic.images, wanted.synthetic.images, rtol=1e-6)
    assert 0 < Asked.most <= 16  # a block, or a batch of the networks


def test_a_start_keeps_a_bound_or_is_refused():
    addresses = [tiny.plan("dm", ipc=2, start="facility_location", memory=memory).needs[
        "start"].address(members.toy_data()) for memory in (None, "20kB")]
    assert addresses[0] == addresses[1]
    with pytest.raises(ConfigError, match="memory is 1.0 kB"):
        tiny.plan("dm", ipc=2, start="facility_location", memory="1kB")


def test_a_start_is_chosen_from_images_on_the_host(store, elsewhere):
    toy = members.toy_data()
    host = dataclasses.replace(toy, images=np.asarray(toy.images))
    starts = [dd.distill.complete(tiny.plan("dm", data, ipc=2, start="k_center"), data,
                                  artefacts=where).start(data, None).images
              for data, where in ((toy, store), (host, elsewhere))]
    np.testing.assert_allclose(*starts, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_memory_is_told_and_too_little_is_refused(name):
    plan = tiny.plan(name, ipc=2)
    assert plan.told.startswith("memory: ") and "on the host" in plan.told
    assert plan.then(lambda recipe: recipe).told == plan.told
    with pytest.raises(ConfigError, match="memory is 100 B, and the .* holds"):
        tiny.plan(name, ipc=2, memory=100)


@pytest.mark.parametrize("name", ["herding", "facility_location", "archaeology"])
def test_a_bound_changes_neither_the_choice_nor_what_is_kept(name, store):
    data = members.toy_data()
    usual = tiny.plan(name, data, ipc=2)

    def fits(bound):
        try:
            return bool(tiny.plan(name, data, ipc=2, memory=bound))
        except ConfigError:
            return False

    tight = tiny.plan(name, data, ipc=2, memory=next(filter(fits, range(150_000, 10**6, 4000))))
    assert tight.addresses(data) == usual.addresses(data) and tight.told != usual.told
    other = ArtefactStore(store.folder.parent / "tight")
    found = dd.distill(tight, data, artefacts=other, show_progress=False)
    assert found.recipe["rows"] == made(name, store, ipc=2).recipe["rows"]


@pytest.mark.parametrize("name", OF_FEATURES)
def test_any_distillation_starts_from_chosen_images(name, store):
    toy = members.toy_data()
    chosen = made(name, store, features="pixels", ipc=2, normaliser="standardise").recipe["rows"]
    plan = tiny.plan("dm", ipc=2, start=name, normaliser="standardise")
    recipe = dd.distill.complete(plan, toy, artefacts=store)
    images = recipe.start(toy, None).images
    np.testing.assert_allclose(images, dd.data.normalise(recipe.normaliser, toy.images[
        np.asarray(chosen)]))
    assert "start" in recipe.settings["needs"] and not tiny.plan("dm").needs


def test_a_start_of_chosen_images_runs_and_one_of_scores_is_unknown(store):
    found = dd.distill(tiny.plan("dm", start="k_means"), members.toy_data(), artefacts=store,
                       show_progress=False)
    assert np.isfinite(found.synthetic.images).all()
    with pytest.raises(ConfigError, match="unknown initialisation 'el2n'"):
        tiny.plan("dm", start="el2n")


def test_defaults_of_scores_are_hardest_first():
    assert {methods.preset(name).order for name in NAMES
            if issubclass(methods.METHODS[name].settings, OfDynamics)} == {"top"}


def test_choices_are_the_same_where_jax_is_told_to_take_float64(store):
    rows = made("herding", store, ipc=2).recipe["rows"]
    with jax.enable_x64(True):
        assert made("herding", store, ipc=2).recipe["rows"] == rows
        assert len(set(made("herding", store, ipc=4).recipe["rows"])) == 8
        other = ArtefactStore(store.folder.parent / "float64")
        assert made("herding", other, ipc=2).recipe["rows"] == rows


def test_weights_are_those_of_the_rule(store):
    found = made("craig", store, ipc=3)
    assert found.synthetic.weights.reshape(2, 3).sum(axis=1).tolist() == [32, 32]
    found = made("grad_match", store, ipc=3)
    np.testing.assert_allclose(found.synthetic.weights.reshape(2, 3).mean(axis=1), 1, rtol=1e-6)


def test_influence_in_classes_or_in_the_set(store):
    within = made("influence_distillation", store, ipc=3, within="class")
    assert within.synthetic.labels.tolist() == [0, 0, 0, 1, 1, 1]
    whole = made("influence_distillation", store, ipc=3)
    assert set(whole.synthetic.labels.tolist()) == {0, 1}


def test_grand_of_all_parameters_is_recorded_apart(store):
    plans = [tiny.plan("grand", gradient=gradient) for gradient in ("last_layer", "all")]
    addresses = [plan.needs["chosen"].needs["dynamics"].address(members.toy_data())
                 for plan in plans]
    other = tiny.plan("el2n").needs["chosen"].needs["dynamics"].address(members.toy_data())
    assert addresses[0] == other != addresses[1]
    rows = made("grand", store, gradient="all", ipc=2).recipe["rows"]
    assert len(set(rows)) == 4
