"""What holds of every plan: the same recipe each time, and equal needs made once."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods
from dd_jax.distill import Plan, complete, distillation, flipped, representative
from dd_jax.distill.plan import as_plan
from dd_jax.store.artefacts import ArtefactStore
from tests.laws import members

NARROW = dict(protocol="cpu", width=2, depth=1, evaluation_width=2, evaluation_epochs=2)
EXPERTS = dict(NARROW, expert_count=2, expert_epochs=5, expert_batch_size=32, batch_size=None,
               inner_steps=2, steps=2)
PLANS = {
    "dm": dict(NARROW, batch_size=4, steps=2),
    "dream": dict(NARROW, batch_size=4, train_images=8, network_batch_size=4, uses=2, networks=2,
                  every=2, iterations=2),
    "dd": dict(NARROW, initialisation="pretrained", bank=2, bank_steps=2, batch_size=4, steps=2),
    "mtt": EXPERTS,
    "wmdd": dict(protocol="cpu", steps=3, teacher_width=2, teacher_epochs=1, evaluation_width=2),
}


def plan_of(name, **changes):
    given = {**PLANS.get(name, EXPERTS), **changes}
    fields = {field.name for field in dataclasses.fields(methods.get(name).settings)}
    return methods.plan(name, members.toy_data(), **{
        key: value for key, value in given.items() if key in fields | {"protocol", "ipc"}})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ArtefactStore(tmp_path_factory.mktemp("store"))


def first_step(recipe):
    d, data = distillation(recipe), members.toy_data()
    state = jax.jit(d.init)(jax.random.key(0), data)
    return jax.jit(d.step)(state, d.fetch(data, d.sample(state, data)))


def counts(store):
    """kind -> [how often made, how often reused]."""
    found = {}
    for name, how, _ in store.report:
        found.setdefault(name.split("-")[0], [0, 0])[how == "reused"] += 1
    return found


@pytest.mark.parametrize("name", PLANS)
def test_building_twice_gives_the_same_recipe_to_the_bit(name, store):
    data = members.toy_data()
    one, two = (complete(plan_of(name), data, artefacts=store) for _ in "ab")
    assert one.settings == two.settings and complete(one, data) is one
    plan = plan_of(name)
    assert one.settings.get("needs", {}) == plan.addresses(data)
    assert plan.addresses(data) == {k: need.address(data) for k, need in plan.needs.items()}
    # What is known before a recipe is built is what it has then.
    assert plan.settings.items() <= one.settings.items() and plan.settings
    jax.tree.map(np.testing.assert_array_equal, first_step(one), first_step(two))


def test_equal_needs_are_made_once_whatever_the_budget_and_the_seed_of_the_run(tmp_path):
    data, store = members.toy_data(), ArtefactStore(tmp_path)
    for ipc in (1, 2):
        for seed in (0, 1):
            dd.distill(plan_of("wmdd", ipc=ipc, steps=1), data, key=seed, artefacts=store,
                       show_progress=False)
    # Each budget's targets ask for the teacher once more, when they are made.
    assert counts(store) == {"teacher": [1, 5], "class_targets": [2, 2]}


@pytest.mark.parametrize("names", [("mtt", "tesla", "att"), ("ftd", "datm")],
                         ids=["plain", "flat"])
def test_methods_share_their_experts(names, tmp_path):
    data, store = members.toy_data(), ArtefactStore(tmp_path)
    alike = dict(expert_epochs=5, expert_batch_size=256)
    settings = {name: methods.preset(name, "cpu", 1, **alike) for name in names}
    plans = {name: methods.plan_with(name, each, data) for name, each in settings.items()}
    assert len({plan.needs["experts"].address(data) for plan in plans.values()}) == 1
    for name in names:  # as well as with tiny ones, which are made
        complete(plan_of(name), data, artefacts=store)
    assert counts(store) == {"experts": [1, len(names) - 1]}


def test_combinators_compose_and_reach_later_stages(store):
    data, plan = members.toy_data(), plan_of("mtt")

    def chosen(recipe):
        return dataclasses.replace(recipe, steps=recipe.steps + 1,
                                   settings={**recipe.settings, "seen": recipe.steps})

    both = plan.then(flipped).then(chosen)
    assert both.needs == plan.needs and both.settings == plan.settings
    recipe = complete(both, data, artefacts=store)
    assert recipe.settings["flipped"] and recipe.settings["seen"] == 2 and recipe.steps == 3
    plain = complete(plan, data, artefacts=store)
    by_hand = chosen(flipped(plain))
    assert {**recipe.settings} == {**by_hand.settings}
    # Later stages have other experts, and the same combinators.
    later = both.later(lambda network: network, "after").later(lambda network: network, "stage 1")
    assert later.addresses(data) == plan.later(lambda n: n, "stage 1").addresses(data)
    assert later.addresses(data) != plan.addresses(data) and later.settings == plan.settings
    assert complete(later, data, artefacts=store).settings["seen"] == 2
    without = plan_of("dm")
    assert without.later is None and without.then(flipped).later is None
    assert as_plan(without) is without and as_plan(plain).build({}) is plain


def test_what_a_combinator_refuses_is_refused_before_anything_is_made(tmp_path):
    """Of every kind of need there is something to try a recipe out with."""
    data = members.toy_data()

    def never(*args, **options):
        raise AssertionError("made")

    for name in (*PLANS, "ncfm", "krr_st"):
        plan = plan_of(name) if name in PLANS else methods.plan(name, data, protocol="cpu")
        plan = dataclasses.replace(plan, needs={
            key: dataclasses.replace(need, make=never) for key, need in plan.needs.items()})
        with pytest.raises(dd.errors.ConfigError, match="already|another method"):
            complete(plan.then(lambda recipe: representative(recipe, data)).then(
                lambda recipe: representative(recipe, data)), data, artefacts=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plan_of_the_user_s_own_needs_no_settings():
    recipe = complete(plan_of("dm"), members.toy_data())
    plan = Plan({}, lambda have: recipe)
    assert complete(plan, members.toy_data()) is recipe and plan.settings == {}
