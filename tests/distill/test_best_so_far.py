"""The best set of a run is found, kept and saved, wherever the run was stopped."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dd_jax as dd
from dd_jax.data import rows_uniform
from dd_jax.distill import BestSoFar
from dd_jax.distill.stepper import Stepper
from dd_jax.errors import ConfigError
from dd_jax.types import Objective

STEPS, RATE, BEST = 24, 0.1, 12


def objective(value):
    """(mean of the images, real batch) -> loss, whatever else there is."""
    return Objective(
        init=lambda key, synthetic: (),
        sample=lambda data, state, key: rows_uniform(data, key, 4),
        loss=lambda synthetic, state, batch, key: (value(jnp.mean(synthetic.images), batch), {}),
        advance=lambda synthetic, state, batch, key: state,
    )


def sinking(tiny_recipe, *, every=4, patience=None, judge=None, **changes):
    """Every step lowers the mean of the images by RATE; the judge wants it as after BEST steps."""
    recipe = tiny_recipe("dm", start="noise")
    size = 2 * 8 * 8  # numbers in the set: the mean's derivative in each is 1 / size

    def begin(data, key):
        start = recipe.start(data, key)
        return start._replace(images=start.images - jnp.mean(start.images))

    def off(mean, batch):
        return jnp.abs(mean + BEST * RATE) + 0 * jnp.sum(batch.images)

    return dataclasses.replace(
        recipe, steps=STEPS, start=begin, optimizer=optax.sgd(RATE * size),
        objective=objective(lambda mean, batch: mean),
        best_so_far=BestSoFar(judge or objective(off), every, patience),
        settings={"every": every}, **changes)


def run(recipe, data, **options):
    return dd.distill(recipe, data, show_progress=False, **options)


def test_the_best_of_all_validations_is_what_a_run_of_so_many_steps_gives(tiny_recipe, toy):
    recipe, scores = sinking(tiny_recipe), []
    found = run(recipe, toy, log_every=1,
                callbacks=[lambda step, metrics: scores.append(metrics["best_score"])])
    assert found.recipe["best_step"] == BEST
    plain = run(dataclasses.replace(recipe, steps=BEST, best_so_far=None), toy)
    np.testing.assert_array_equal(found.synthetic.images, plain.synthetic.images)
    # At the start, after 4 steps, after 8, ...
    expected = [RATE * max(BEST - 4 * (step // 4), 0) for step in range(1, STEPS + 1)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert found.recipe["best_score"] == scores[-1]
    assert not {"best_step", "ended_after"} & {*plain.recipe} and "ended_after" not in found.recipe


def test_images_on_the_host_are_validated_as_well(tiny_recipe, toy, toy_on_host):
    recipe, scores = sinking(tiny_recipe), {}
    a, b = (run(recipe, data, log_every=1, callbacks=[
        lambda step, metrics: scores.setdefault(step, []).append(metrics["best_score"])])
        for data in (toy, toy_on_host))
    assert len(scores) == STEPS and all(abs(x - y) < 1e-5 for x, y in scores.values())
    assert a.recipe["best_step"] == b.recipe["best_step"] == BEST
    np.testing.assert_allclose(a.synthetic.images, b.synthetic.images, atol=1e-6)


@pytest.mark.parametrize("device", [True, False])
def test_a_run_ends_where_its_patience_does_and_once(
    tiny_recipe, toy, toy_on_host, tmp_path, device, monkeypatch
):
    data = toy if device else toy_on_host
    recipe = sinking(tiny_recipe, patience=3)
    found = run(recipe, data, workdir=tmp_path)
    text = (tmp_path / "metrics.jsonl").read_text()
    # The validation after step 16 is the first of more than three steps after the best one.
    assert [json.loads(line)["step"] for line in text.splitlines()] == [10, 16]
    assert found.recipe["ended_after"] == 16
    monkeypatch.setattr(Stepper, "compile", None)  # not even compiled
    again = run(recipe, data, workdir=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == text
    assert found.recipe["best_step"] == again.recipe["best_step"] == BEST
    np.testing.assert_array_equal(found.synthetic.images, again.synthetic.images)


def test_a_stopped_run_has_not_forgotten_its_best(tiny_recipe, toy, tmp_path):
    recipe = sinking(tiny_recipe)

    class Stop(BaseException):
        pass

    def stop(step, metrics):
        if step == 20:
            raise Stop

    with pytest.raises(Stop):
        run(recipe, toy, workdir=tmp_path, save_every=4, callbacks=[stop])
    found = run(recipe, toy, workdir=tmp_path, save_every=4)
    assert found.recipe["best_step"] == BEST
    np.testing.assert_array_equal(found.synthetic.images, run(recipe, toy).synthetic.images)


def test_what_is_not_a_number_is_not_better(tiny_recipe, toy, tmp_path):
    judge = objective(lambda mean, batch: jnp.where(mean < -1.5, jnp.abs(mean), jnp.nan))
    recipe = sinking(tiny_recipe, judge=judge)
    assert run(recipe, toy).recipe["best_step"] == 16  # the first validation below -1.5
    # Nor is minus infinity, which would be the best for good.
    never = sinking(tiny_recipe, judge=objective(
        lambda mean, batch: jnp.where(mean < -1, -jnp.inf, jnp.nan)))
    with pytest.warns(UserWarning, match="the set is the one that the run started from"):
        found = run(never, toy, workdir=tmp_path)
    assert found.recipe["best_step"] == 0 and found.recipe["best_score"] is None
    assert list((tmp_path / "checkpoints").iterdir())


def test_the_average_is_judged_where_the_average_is_what_is_kept(tiny_recipe, toy):
    """It lags behind the last images, so it comes by later."""
    assert run(sinking(tiny_recipe, average=0.9), toy).recipe["best_step"] > BEST


def test_mirror_images_are_judged_with_the_set(tiny_recipe, toy):
    counts = []

    def count(synthetic, state, batch, key):
        counts.append(len(synthetic.images))
        return jnp.mean(synthetic.images), {}

    judge = objective(None)._replace(loss=count)
    run(dd.distill.flipped(sinking(tiny_recipe, judge=judge)), toy)
    assert set(counts) == {4}


def test_representative_batches_are_not_what_judges(tiny_recipe, toy):
    """A choice of batches changes how a set is found, not how good it is."""
    recipe = sinking(tiny_recipe)
    assert (dd.distill.representative(recipe, toy).best_so_far.objective
            is recipe.best_so_far.objective)


@pytest.mark.parametrize("best,message", [
    ("best", "a str, expected a BestSoFar"), (BestSoFar(None, 0), "every is 0"),
    (BestSoFar(None, 4, 0), "patience is 0"),
])
def test_what_is_no_best_so_far_is_refused(tiny_recipe, best, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(tiny_recipe("dm"), best_so_far=best)


def test_the_own_objective_is_refused_where_it_would_not_see_the_whole_set(tiny_recipe):
    plain = tiny_recipe("dm")
    taking_turns = plain.objective._replace(turns=2)
    own = BestSoFar(taking_turns, 4)
    with pytest.raises(ConfigError, match="takes turns"):
        dataclasses.replace(plain, objective=taking_turns, best_so_far=own)


def test_a_loss_that_is_no_scalar_is_refused_before_anything_compiles(tiny_recipe, toy):
    judge = objective(lambda mean, batch: mean[None])
    with pytest.raises(ConfigError, match=r"best_so_far's loss has shape \(1,\)"):
        run(sinking(tiny_recipe, judge=judge), toy)


def test_validations_are_equal_and_populations_have_their_own(tiny_recipe, toy):
    d = dd.distillation(sinking(tiny_recipe))
    states = jax.vmap(lambda seed: d.init(jax.random.key(seed), toy))(jnp.arange(2))
    rows = jax.vmap(lambda s: d.validation.sample(s, toy))(states)
    later = jax.vmap(lambda s: d.validation.sample(s._replace(step=s.step + 4), toy))(states)
    np.testing.assert_array_equal(rows, later)
    assert not np.array_equal(rows[0], rows[1])
    after, _, _ = jax.vmap(lambda s: d.run(s, toy, STEPS, STEPS))(states)
    np.testing.assert_array_equal(after.best.step, [BEST, BEST])
