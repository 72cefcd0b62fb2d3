"""Sets made in stages: the first is the recipe's own, the earlier ones never move."""

from __future__ import annotations

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.distill import complete, package, progressive
from dd_jax.distill.plan import as_plan
from dd_jax.errors import CheckpointError, ConfigError, SetFileError
from dd_jax.evaluate import equal_budget, evaluate_progressive
from dd_jax.objectives import conditioned, mean_embedding
from dd_jax.store import open_trajectories
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.synthetic import joined, stage_sets
from dd_jax.types import SyntheticSet
from tests.laws import members

MTT = dict(width=4, depth=1, expert_count=2, expert_epochs=3, expert_batch_size=16, inner_steps=3,
           max_start=2, span=2, steps=4, image_rate=1.0, rate=0.1, evaluation_width=4,
           evaluation_epochs=30)


def run(recipe, data, stages, **options):
    return progressive(recipe, data, stages=stages, show_progress=False, **options)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_one_stage_is_the_recipe(toy, tiny_recipe):
    recipe = tiny_recipe("dm")
    alone = dd.distill(recipe, toy, key=3, show_progress=False)
    assert same(alone.synthetic, run(recipe, toy, 1, key=3).synthetic)


def test_a_plan_says_in_how_many_stages_its_sets_are_made(toy, tiny_recipe):
    plan = dataclasses.replace(as_plan(tiny_recipe("dm", steps=1)), stages=2)
    made = progressive(plan, toy, show_progress=False)
    assert made.recipe["stages"] == 2 and made.synthetic.images.shape[0] == 4


def test_stages_add_images_and_leave_the_earlier_ones_alone(toy, tiny_recipe, tmp_path):
    recipe = tiny_recipe("dm")
    first = dd.distill(recipe, toy, key=0, show_progress=False).synthetic
    both = run(recipe, toy, 2, workdir=tmp_path)
    assert both.recipe["stages"] == 2 and both.recipe["shown_images"] == 4
    assert both.stored_bytes == 2 * dd.distill(recipe, toy, show_progress=False).stored_bytes
    early, late = stage_sets(both.synthetic, 2, 2)
    assert same(early[:2], first[:2]) and same(late[:2], both.synthetic[:2])
    # The same call finds both stages finished; the set is on disk.
    assert same(run(recipe, toy, 2, workdir=tmp_path).synthetic, both.synthetic)
    assert same(dd.load(tmp_path / "set.safetensors").synthetic, both.synthetic)


def test_no_stage_has_a_key_of_the_outer_loop_s_consumers(toy, tiny_recipe, monkeypatch):
    keys, key = [], jax.random.key(4)

    def recorded(plan, data, *, key, **options):
        keys.append(key)
        return package(complete(plan, data), members.start(labels="one_hot"), data)

    monkeypatch.setattr(sys.modules["dd_jax.distill.progressive"], "distill", recorded)
    run(tiny_recipe("dm"), toy, 6, key=key)
    bits = [tuple(jax.random.key_data(each).tolist()) for each in keys]
    taken = [tuple(jax.random.key_data(jax.random.fold_in(key, i)).tolist()) for i in range(6)]
    assert keys[0] is key and len({*bits, *taken}) == 12


def test_the_loss_is_that_of_both_sets_and_its_slope_that_of_the_new_one(toy):
    network = dd.nets.mlp(members.SPEC, width=4)
    plain = mean_embedding(network, dd.pools.fresh_pool(network), batch_size=4)
    old, new = members.start("real", labels="one_hot"), members.start("noise", labels="one_hot")
    objective, key = conditioned(plain, old, 2), jax.random.key(0)
    state = objective.init(key, new)
    batch = dd.distill.outer.fetch(toy, objective.sample(toy, state, key))
    batch = dd.distill.outer.in_model_space(dd.data.standardise(toy), batch)

    def loss(images):
        return objective.loss(new._replace(images=images), state, batch, key)[0]

    def union(old_images, new_images):
        whole = joined(old._replace(images=old_images), new._replace(images=new_images), 2)
        return plain.loss(whole, state.inner, batch, key)[0]

    assert float(loss(new.images)) == float(union(old.images, new.images))
    np.testing.assert_allclose(jax.grad(loss)(new.images),
                               jax.grad(union, 1)(old.images, new.images), rtol=1e-6)
    after = objective.advance(new, state, batch, key)
    assert same(after[1:], (old.images, old.labels))


def test_later_experts_start_where_earlier_sets_have_led(toy, tmp_path):
    store = ArtefactStore(tmp_path / "artefacts")
    plan = dd.methods.plan("mtt", toy, protocol="cpu", ipc=1, **MTT)
    made = run(plan, toy, 2, workdir=tmp_path / "run", artefacts=store)
    assert made.synthetic.learning_rate.shape == (2,)
    folders = [name for name, how, _ in store.report if how == "made"]
    assert len(folders) == 2  # the first stage's are not made again
    starts = [open_trajectories(store.folder / name).read(0, 0) for name in folders]
    recipe = complete(plan, toy, artefacts=store)
    network = dd.nets.convnet(toy.spec, depth=1, width=4)
    images = dd.data.normalise(recipe.normaliser, toy.images)
    unflatten = dd.train.unflatten(jax.eval_shape(network.init, jax.random.key(0))["params"])

    def wrong(flat):
        logits = network.apply({"params": unflatten(flat)}, images).logits
        one_hot = jax.nn.one_hot(toy.labels, 2)
        return float(-jnp.mean(jnp.sum(one_hot * jax.nn.log_softmax(logits), axis=-1)))

    assert wrong(starts[1]) < wrong(starts[0]) - 0.01
    tested = evaluate_progressive(made, toy, protocol=recipe.evaluation, key=jax.random.key(0),
                                  stages=2, seeds=2)
    assert tested.mean > 0.6
    with pytest.raises(ConfigError, match="2 learning rates.*evaluate_progressive"):
        dd.evaluate(made, toy, protocol=recipe.evaluation, key=jax.random.key(0), seeds=1)
    with pytest.raises(SetFileError, match="4 images, which 3 stages of 2"):
        evaluate_progressive(made, toy, protocol=recipe.evaluation, key=jax.random.key(0), stages=3)


def test_the_budget_of_stages_is_that_of_one_run():
    for stages in (1, 2, 5):
        epochs = equal_budget(1000, stages)
        passes = sum(epochs * stage for stage in range(1, stages + 1))
        assert abs(passes - 1000 * stages) <= stages * stages
    assert equal_budget(1, 10) == 1


def test_what_cannot_be_done_in_stages(toy, tiny_recipe):
    with pytest.raises(ConfigError, match="stages is 0, expected"):
        run(tiny_recipe("dm"), toy, 0)
    fixed = tiny_recipe("dm")
    fixed = dataclasses.replace(fixed, objective=fixed.objective._replace(bound="it knows them"))
    with pytest.raises(ConfigError, match="has no stages: it knows them"):
        run(fixed, toy, 2)
    with pytest.raises(ConfigError, match="5 images, which 2 classes cannot share"):
        conditioned(None, SyntheticSet(jnp.zeros((5, 1, 1, 1)), jnp.zeros((5, 2))), 2)


def test_a_staged_run_and_a_single_one_refuse_each_other_s_folder(toy, tiny_recipe, tmp_path):
    recipe, single, staged = tiny_recipe("dm"), tmp_path / "single", tmp_path / "staged"
    dd.distill(recipe, toy, workdir=single, show_progress=False)
    run(recipe, toy, 2, workdir=staged)
    before = [(f / "set.safetensors").read_bytes() for f in (single, staged)]
    with pytest.raises(CheckpointError, match="stages: .absent. in the folder, 2 now"):
        run(recipe, toy, 2, workdir=single)
    with pytest.raises(CheckpointError, match="stages: 2 in the folder, 3 now"):
        run(recipe, toy, 3, workdir=staged)
    with pytest.raises(CheckpointError, match="stages: 2 in the folder"):
        dd.distill(recipe, toy, workdir=staged, show_progress=False)
    assert before == [(f / "set.safetensors").read_bytes() for f in (single, staged)]
