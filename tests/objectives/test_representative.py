"""Representative batches: when they are chosen, what they replace, and whole runs with them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import nets, objectives, pools
from dd_jax.data import as_index, from_arrays, rows_per_class, rows_uniform, standardise
from dd_jax.distill import Plan, distillation, needs, outer, representative
from dd_jax.distill.plan import complete
from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.train import representatives
from dd_jax.types import Objective
from tests.laws import members


def sampling(sample, embed=None):
    """An objective that only samples; its state counts its own advances."""
    return Objective(
        init=lambda key, synthetic: jnp.zeros((), jnp.int32), sample=sample,
        loss=lambda synthetic, state, batch, key: (jnp.mean(synthetic.images**2), {}),
        advance=lambda synthetic, state, batch, key: state + 1, embed=embed,
    )


def pixels(state, images, key):
    return images.reshape(len(images), -1)


def wrapped(plain, toy, **options):
    return objectives.representative_batches(plain, toy, normaliser=standardise(toy), **options)


def walk(objective, toy, steps):
    """The rows of `steps` steps, as NumPy, and the last state."""
    synthetic = members.start()
    state = objective.init(jax.random.key(0), synthetic)

    @jax.jit
    def step(state, key):
        rows = objective.sample(toy, state, key)
        return rows, objective.advance(synthetic, state, outer.fetch(toy, rows), key)

    seen = []
    for i in range(steps):
        rows, state = step(state, jax.random.key(i))
        seen.append(jax.tree.map(np.asarray, rows))
    return seen, state


def test_every_third_step_chooses_and_the_others_keep(toy):
    sizes = dict(matching=4, steps=2)

    def sample(data, state, key):
        return {"match": rows_per_class(data, key, sizes["matching"]),
                "training": rows_uniform(data, key, 6).reshape(3, sizes["steps"])}

    seen, state = walk(wrapped(sampling(sample, pixels), toy, every=3), toy, 7)
    matching, training = ([s[name] for s in seen] for name in ("match", "training"))
    for i in range(1, 7):
        same = np.array_equal(matching[i], matching[i - 1])
        assert same == (i % 3 != 0), i
        assert not np.array_equal(training[i], training[i - 1])
    for rows in matching:
        np.testing.assert_array_equal(toy.labels[rows], [[0] * 4, [1] * 4])
    assert state.inner == 7 and state.age == 7
    np.testing.assert_array_equal(state.rows["match"], matching[-1])


def test_classes_in_turn_have_their_own_representatives_at_their_own_times(toy):
    plain = objectives.class_by_class(
        sampling(lambda data, state, key: rows_per_class(data, key, 6), pixels), members.CLASSES)
    seen, state = walk(wrapped(plain, toy, every=6), toy, 14)
    for i, rows in enumerate(seen):
        np.testing.assert_array_equal(toy.labels[rows], [[i % 2] * 6])
        if i >= 2:
            assert np.array_equal(rows, seen[i - 2]) == (i % 6 >= 2), i
    np.testing.assert_array_equal(state.rows, np.concatenate(seen[-2:]))
    assert state.chosen[0].tolist() == [12, 13] and state.inner.inner == 7


def test_the_rows_are_those_of_the_representatives(toy):
    objective = wrapped(sampling(lambda d, s, k: rows_per_class(d, k, 4), pixels), toy,
                        iterations=3, candidates=20)
    state = objective.init(jax.random.key(0), members.start())
    key = jax.random.key(5)
    choice_key = jax.random.fold_in(jax.random.split(key, 3)[2], 0)
    wanted = jax.jit(lambda data: representatives(
        data, lambda x: pixels(None, x, None), count=4, key=choice_key,
        normaliser=standardise(toy), iterations=3, candidates=20))(toy)
    np.testing.assert_array_equal(jax.jit(objective.sample)(toy, state, key), wanted)


def test_a_batch_of_any_rows_becomes_class_by_class_with_a_random_rest(toy):
    seen, _ = walk(wrapped(sampling(lambda d, s, k: rows_uniform(d, k, 9), pixels), toy), toy, 3)
    for rows in seen:
        np.testing.assert_array_equal(toy.labels[rows[:8]], [0] * 4 + [1] * 4)
        np.testing.assert_array_equal(rows[:8], seen[0][:8])
    assert len({int(rows[8]) for rows in seen}) > 1


def test_batches_that_only_look_class_by_class_stay_random(toy):
    def sample(data, state, key):  # two batches for two training steps, and there are two classes
        return rows_per_class(data, key, 3), rows_uniform(data, key, 20).reshape(2, 10)

    seen, _ = walk(wrapped(sampling(sample, pixels), toy), toy, 2)
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert not np.array_equal(seen[0][1], seen[1][1])
    assert len(set(seen[0][1].ravel())) == 20


def test_an_objective_without_embedding_takes_the_network(toy):
    plain = sampling(lambda d, s, k: rows_per_class(d, k, 2))
    with pytest.raises(ConfigError, match="network"):
        wrapped(plain, toy)
    objective = wrapped(plain, toy, network=nets.mlp(toy.spec, width=8))
    assert objective.embed is None
    state = objective.init(jax.random.key(0), members.start())
    rows = jax.jit(objective.sample)(toy, state, jax.random.key(1))
    np.testing.assert_array_equal(toy.labels[rows], [[0, 0], [1, 1]])


def test_the_embedding_is_passed_on(toy):
    network = nets.mlp(toy.spec, width=8)
    plain = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=4)
    objective = wrapped(plain, toy)
    state = objective.init(jax.random.key(0), members.start())
    images, key = members.start().images, jax.random.key(3)
    np.testing.assert_array_equal(objective.embed(state, images, key),
                                  plain.embed(state.inner, images, key))


@pytest.mark.parametrize("rows", [None, (), jnp.zeros((2, 3)), jnp.zeros((3, 4), jnp.int32),
                                  jnp.zeros((1,), jnp.int32)],
                         ids=["none", "empty", "floats", "other_shape", "fewer_than_classes"])
def test_nothing_to_replace_is_refused(toy, rows):
    objective = wrapped(sampling(lambda d, s, k: rows, pixels), toy)
    with pytest.raises(ConfigError, match="nothing that representatives can replace"):
        objective.init(jax.random.key(0), members.start())


@pytest.mark.parametrize("option", [dict(every=0), dict(iterations=-1), dict(subsample=0),
                                    dict(candidates=2.5)], ids=lambda option: next(iter(option)))
def test_wrong_settings_are_named_at_once(toy, tiny_recipe, option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        representative(tiny_recipe("dm"), toy, **option)


def test_settings_that_do_not_fit_the_batch_are_refused_before_a_run(toy, tiny_recipe):
    for option in (dict(subsample=3), dict(candidates=7)):
        recipe = representative(tiny_recipe("dm", batch_size=8), toy, **option)
        with pytest.raises(ConfigError, match=next(iter(option))):
            dd.distill(recipe, toy, show_progress=False)


def test_images_on_the_host_are_refused(toy, tiny_recipe):
    on_host = from_arrays(np.asarray(toy.images), np.asarray(toy.labels), device=False)
    with pytest.raises(ConfigError, match="device"):
        representative(tiny_recipe("dm"), on_host)
    recipe = representative(tiny_recipe("dm"), toy)
    with pytest.raises(ConfigError, match="device"):
        dd.distill(recipe, on_host, show_progress=False)
    objective = wrapped(sampling(lambda d, s, k: rows_per_class(d, k, 2), pixels), toy)
    state = objective.init(jax.random.key(0), members.start())
    with pytest.raises(ConfigError, match="device"):
        objective.sample(as_index(toy), state, jax.random.key(0))


def test_a_run_whose_state_was_stored_goes_on_to_the_same_bits(tiny_recipe, toy):
    d = distillation(representative(tiny_recipe("frepo", batch_size=17), toy, every=4))
    step = jax.jit(lambda state: d.step(state, d.fetch(toy, d.sample(state, toy)))[0])
    start = jax.jit(d.init)(jax.random.key(0), toy)
    whole = stored = start
    for i in range(6):
        whole = step(whole)
        if i == 2:
            stored = jax.tree.map(np.array, whole)
    for _ in range(3, 6):
        stored = step(stored)
    jax.tree.map(np.testing.assert_array_equal, whole, stored)
    assert whole.objective.age == 6
    assert np.abs(whole.params["images"] - start.params["images"]).max() > 0


def test_a_whole_run_is_another_than_the_plain_one(tiny_recipe, toy, tmp_path):
    plain = tiny_recipe("frepo", steps=3)
    recipe = representative(plain, toy, candidates=16)
    dd.distill(recipe, toy, show_progress=False, workdir=tmp_path)
    saved = dd.load(tmp_path / "set.safetensors")
    assert np.all(np.isfinite(saved.synthetic.images))
    assert saved.recipe["representative"] == dict(every=10, candidates=16, iterations=10,
                                                  subsample=1)
    with pytest.raises(CheckpointError, match="representative"):
        dd.distill(plain, toy, show_progress=False, workdir=tmp_path)


def test_a_plan_that_needs_something_first(tiny_recipe, toy):
    def nothing(data=None, key=None):
        return {"x": jnp.zeros(())}

    plain = tiny_recipe("dm", steps=3, augmentation="none")
    plan = Plan({"x": needs.arrays("nothing", {}, nothing, nothing)}, lambda have: plain)
    plan = plan.then(lambda recipe: representative(recipe, toy, every=2))
    made = dd.distill(plan, toy, show_progress=False)
    assert np.all(np.isfinite(made.synthetic.images))
    recipe = complete(plan, toy)
    state = jax.eval_shape(distillation(recipe).init, jax.random.key(0), toy)
    assert state.objective.rows.shape == (2, 8)
    with pytest.raises(ConfigError, match="already"):
        representative(recipe, toy)
