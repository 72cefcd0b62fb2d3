"""Recipes of distribution matching with representative batches, or flipped, or both."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from dd_jax import methods
from dd_jax.distill import complete, distillation, flipped, grown, outer, representative
from dd_jax.errors import ConfigError
from tests.laws import members

NARROW = dict(width=2, depth=1, evaluation_width=2, evaluation_epochs=2)
TINY = {
    "cafe": dict(NARROW, protocol="cpu", batch_size=6, measure_size=3, max_uses=3,
                 max_epochs=3, window=2),
    "idc": dict(NARROW, in_turn=True, batch_size=4, train_images=8, network_batch_size=4, uses=2,
                networks=2),
    "m3d": dict(NARROW, in_turn=True, batch_size=4, uses=2),
    "ncfm": dict(NARROW, iterations=3, batch_size=8, frequencies=8, bank=2, bank_steps=2,
                 bank_batch_size=8, matching="none"),
    "wmdd": dict(protocol="cpu", steps=3, teacher_width=2, teacher_epochs=1, evaluation_width=2),
}


def built(name, **changes):
    return methods.recipe(name, members.toy_data(), **{**TINY[name], **changes})


def walked(recipe, count, *, losses=True):
    """(last state of the objective, rows of each step [count, ...]) of a set that stays.

    Without the derivative, most of a step's compilation; `losses` asks for finite ones, too.
    """
    data, objective = members.toy_data(), recipe.objective
    shown = members.start("noise", labels="one_hot")

    def step(state, key):
        rows = objective.sample(data, state, key)
        batch = outer.in_model_space(recipe.normaliser, outer.fetch(data, rows))
        value = objective.loss(shown, state, batch, key)[0] if losses else 0.0
        return objective.advance(shown, state, batch, key), (rows, value)

    def run(key):
        return jax.lax.scan(step, objective.init(key, shown), jax.random.split(key, count))

    last, (rows, values) = jax.jit(run)(jax.random.key(0))
    assert np.all(np.isfinite(values))
    return last, jax.tree.map(np.asarray, rows)


def changes(rows):
    """The steps that have other rows than the step before."""
    return [i for i in range(1, len(rows)) if not np.array_equal(rows[i], rows[i - 1])]


def labels_of(rows):
    return np.asarray(members.toy_data().labels)[rows]


def assert_class_by_class(rows):
    np.testing.assert_array_equal(labels_of(rows),
                                  np.broadcast_to(np.arange(2)[:, None], rows.shape))


def changes_of_each(rows, turns):
    """The steps where a class has other rows than when it was asked for before.

    Each step, [1, n], has rows of the class that `turns` says.
    """
    turns = np.asarray(turns)
    np.testing.assert_array_equal(labels_of(rows)[:, 0], np.broadcast_to(
        turns[:, None], (len(rows), rows.shape[-1])))
    steps = [np.flatnonzero(turns == c) for c in range(2)]
    return sorted(int(own[i]) for own in steps for i in changes(rows[own]))


def test_only_what_cafe_matches_becomes_representative():
    data = members.toy_data()
    # Clusters of two rows cannot give the three rows that accuracies are measured on.
    recipe = flipped(representative(built("cafe"), data, every=3, subsample=2))
    _, rows = walked(recipe, 7)
    assert rows["match"].shape == (7, 2, 6) and rows["measure"].shape == (7, 2, 3)
    assert changes(rows["match"]) == [3, 6]
    assert changes(rows["measure"]) == [1, 2, 3, 4, 5, 6]
    for part in rows.values():
        assert_class_by_class(part)
    assert recipe.settings["flipped"] is True
    assert recipe.settings["representative"]["every"] == 3


def test_an_iteration_in_turn_keeps_its_representatives_as_in_dream():
    data = members.toy_data()
    recipe = built("idc")
    assert recipe.objective.turns == members.CLASSES
    last, rows = walked(representative(recipe, data, every=2, iterations=3), 9, losses=False)
    # Two iterations of two classes; networks are trained after the second class.
    assert rows["match"].shape == (9, 1, 4)
    assert changes_of_each(rows["match"], np.arange(9) % 2) == [4, 5, 8]
    assert changes(rows["train"][1::2]) == [1, 2, 3] and not np.any(rows["train"][::2])
    assert int(last.age) == 9 and int(last.inner.turn) == 1
    # Networks of both see real images alone, and so the choices are the same.
    dream = methods.recipe("dream", data, **{**TINY["idc"], "every": 2, "iterations": 3})
    assert dream.objective.turns == members.CLASSES
    _, own = walked(dream, 9, losses=False)
    np.testing.assert_array_equal(own["match"], rows["match"])
    np.testing.assert_array_equal(own["train"], rows["train"])


def test_m3d_in_turn_keeps_its_representatives_for_iterations():
    _, rows = walked(representative(built("m3d"), members.toy_data(), every=2), 9)
    assert rows.shape == (9, 1, 4)
    assert changes_of_each(rows, np.arange(9) % 2) == [4, 5, 8]


def test_m3d_flipped_takes_its_turns():
    data, recipe = members.toy_data(), flipped(built("m3d"))
    d = distillation(recipe)
    first = jax.jit(d.init)(jax.random.key(0), data)
    last, metrics, done = jax.jit(d.run, static_argnames="length")(first, data, 2, length=2)
    assert int(done) == 2 and np.all(metrics["finite"]) and np.all(metrics["loss"] > 0)
    assert int(last.objective.turn) == 0 and int(last.objective.inner.pool.uses) == 1
    moved = np.asarray(first.params["images"] != last.params["images"])
    assert np.all(np.any(moved, axis=(1, 2, 3)))
    assert d.decode(last).images.shape == (2 * 4, *members.SHAPE)


def test_ncfm_in_turn_matches_representatives_and_calibrates_as_before():
    data = members.toy_data()
    plain = built("ncfm")
    assert plain.objective.turns == 2 * members.CLASSES
    wrapped = representative(plain, data, every=1, subsample=2)
    assert wrapped.objective.turns == plain.objective.turns and "bank" in wrapped.settings["needs"]
    last, (match, calibration) = walked(wrapped, 9)
    # Two steps match, two calibrate, in which matching waits for its first class.
    assert match.shape == (9, 1, 8)
    assert changes_of_each(match, [0, 1, 0, 0, 0, 1, 0, 0, 0]) == [4, 5, 8]
    one, = jax.tree.leaves(calibration)
    np.testing.assert_array_equal(
        one[:, 0], np.asarray(data.class_rows)[[0, 0, 0, 1, 0, 0, 0, 1, 0], :1])
    assert int(last.inner.step) == 1


def test_ncfm_together_matches_representatives_and_can_be_flipped():
    data = members.toy_data()
    wrapped = flipped(representative(built("ncfm", in_turn=False), data, every=2, subsample=2))
    _, (match, calibration) = walked(wrapped, 5)
    assert changes(match) == [2, 4]
    one, = jax.tree.leaves(calibration)
    assert one.shape == (5, 2, 1) and changes(one) == []


def test_wmdd_is_refused_before_its_teacher_is_trained(tmp_path):
    data = members.toy_data()

    def never(*args, **options):
        raise AssertionError("made")

    plan = methods.plan("wmdd", data, **TINY["wmdd"])
    plan = dataclasses.replace(plan, needs={
        name: dataclasses.replace(need, make=never) for name, need in plan.needs.items()})
    with pytest.raises(ConfigError, match="no real batches.*barycentre.*another method"):
        complete(plan.then(lambda recipe: representative(recipe, data)), data, artefacts=tmp_path)
    with pytest.raises(ConfigError, match="cannot be flipped.*barycentre.*another method"):
        complete(plan.then(flipped), data, artefacts=tmp_path)


@pytest.mark.parametrize("name,changes,vary", [
    ("rat_bptt", dict(window=2, inner_steps=3, per_class=1, inner_rate=0.02),
     lambda recipe, data: representative(recipe, data, every=2, candidates=8)),
    ("rat_bptt", dict(window=2, inner_steps=3, per_class=1, inner_rate=0.02),
     lambda recipe, data: grown(recipe, members.start(labels="one_hot"), share=0.0)),
    ("dd", dict(initialisation="pretrained", bank=2, bank_steps=2),
     lambda recipe, data: recipe),
], ids=["representative", "grown", "pretrained"])
def test_variants_of_a_changed_recipe_have_its_state(name, changes, vary):
    data = members.toy_data()
    recipe = vary(methods.recipe(name, data, ipc=4, width=4, depth=1, batch_size=8, steps=2,
                                 normaliser="standardise",
                                 **({"augmentation": "none"} if name == "rat_bptt" else {}),
                                 **changes), data)
    key = jax.random.key(0)
    state = jax.eval_shape(distillation(recipe).init, key, data)
    for build in recipe.objective.variants.values():
        other = distillation(dataclasses.replace(recipe, objective=build()))

        def step(state, other=other):
            return other.step(state, other.fetch(data, other.sample(state, data)))

        after = jax.eval_shape(step, state)[0]
        assert jax.tree.structure(after) == jax.tree.structure(state)
    assert recipe.objective.variants
