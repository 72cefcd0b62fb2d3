"""Complete runs: determinism, continuation, host feeding, errors that teach."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.distill.stepper import Stepper
from dd_jax.errors import CheckpointError, ConfigError, DeviceMemoryError, NonFiniteError
from dd_jax.types import Batch


def run(recipe, data, **options):
    return dd.distill(recipe, data, **{"show_progress": False, **options})


def images(distilled):
    return np.asarray(distilled.synthetic.images)


@pytest.mark.parametrize("name", ["frepo", "dm"])
def test_same_seed_same_bits_other_seed_other_set(name, tiny_recipe, toy):
    first, again = (run(tiny_recipe(name), toy, key=3) for _ in "ab")
    np.testing.assert_array_equal(images(first), images(again))
    assert not np.array_equal(images(first), images(run(tiny_recipe(name), toy, key=4)))


def test_the_package_is_callable_as_distill(tiny_recipe, toy):
    recipe = tiny_recipe("dm")
    by_name = dd.distill(recipe, toy, key=0, show_progress=False)
    np.testing.assert_array_equal(images(by_name), images(run(recipe, toy, key=0)))


@pytest.mark.parametrize("device", [True, False])
def test_f56_what_the_user_holds_survives(device, tiny_recipe, toy, toy_on_host):
    data = toy if device else toy_on_host
    key, recipe = jax.random.key(5), tiny_recipe("dm")
    start = jax.jit(recipe.start)(toy, key)
    recipe = dataclasses.replace(recipe, start=lambda data, key: start)
    a = run(recipe, data, key=key)
    b = run(recipe, data, key=key)  # a donated key or start would raise here
    np.testing.assert_array_equal(images(a), images(b))
    assert np.isfinite(np.asarray(start.images)).all()


def test_a_stopped_run_continues_to_the_same_bits(tiny_recipe, toy, tmp_path):
    recipe = tiny_recipe("frepo", steps=9)
    whole = run(recipe, toy, workdir=tmp_path / "whole", log_every=2)

    class Stop(BaseException):
        pass

    for at in (2, 5, 8):
        with pytest.raises(Stop):
            _run_and_break(recipe, toy, tmp_path / "parts", at, Stop)
    parts = run(recipe, toy, workdir=tmp_path / "parts", log_every=2, save_every=1)
    np.testing.assert_array_equal(images(whole), images(parts))
    for name in ("set.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def _run_and_break(recipe, data, folder, at, error):
    """Runs with a checkpoint at every step and dies right after the one at step `at`."""
    from dd_jax.run import workdir

    save = workdir.Workdir.save

    def dying(self, step, state):
        save(self, step, state)
        if step == at:
            raise error

    workdir.Workdir.save = dying
    try:
        run(recipe, data, workdir=folder, log_every=2, save_every=1)
    finally:
        workdir.Workdir.save = save


def test_a_finished_run_is_not_repeated(tiny_recipe, toy, tmp_path):
    seen = []
    options = dict(workdir=tmp_path, log_every=1, callbacks=[lambda step, m: seen.append(step)])
    first = run(tiny_recipe("dm"), toy, **options)
    spent = (tmp_path / "seconds.json").read_bytes()
    second = run(tiny_recipe("dm"), toy, **options)
    assert (tmp_path / "seconds.json").read_bytes() == spent
    assert seen == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(images(first), images(second))


def test_another_recipe_in_the_same_folder_is_refused_with_the_difference(
    tiny_recipe, toy, tmp_path
):
    run(tiny_recipe("dm"), toy, workdir=tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "set.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="learning_rate"):
        run(tiny_recipe("dm", learning_rate=0.5), toy, workdir=tmp_path)
    assert (tmp_path / "set.safetensors").read_bytes() == before


def test_feeding_from_the_host_equals_the_device(tiny_recipe, toy, toy_on_host):
    for name in ("frepo", "dm"):
        recipe = tiny_recipe(name)
        np.testing.assert_allclose(
            images(run(recipe, toy)), images(run(recipe, toy_on_host)), atol=1e-4
        )


def test_metrics_are_json_lines_at_the_asked_steps(tiny_recipe, toy, tmp_path):
    run(tiny_recipe("dm", steps=5), toy, workdir=tmp_path, log_every=2)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_a_faulty_callback_is_switched_off(tiny_recipe, toy, capfd):
    calls = []

    def faulty(step, metrics):
        calls.append(step)
        raise RuntimeError("plot back end is gone")

    run(tiny_recipe("dm"), toy, log_every=1, callbacks=[faulty])
    assert calls == [1]
    assert "plot back end is gone" in capfd.readouterr().err


def test_a_non_finite_run_keeps_the_last_good_state(tiny_recipe, toy, tmp_path):
    recipe = tiny_recipe("dm", learning_rate=1e38, start="noise")
    with pytest.raises(NonFiniteError, match="learning rate"):
        run(recipe, toy, workdir=tmp_path)


@pytest.mark.parametrize("on_device", [True, False])
def test_f33_what_a_non_finite_step_was_fed_with_shows_it_again(
    tiny_recipe, toy, toy_on_host, tmp_path, on_device
):
    plain = tiny_recipe("dm")

    def loss(synthetic, state, batch, key):
        value, metrics = plain.objective.loss(synthetic, state, batch, key)
        parts = jax.tree.leaves(batch, is_leaf=lambda b: isinstance(b, Batch))
        rows = jnp.concatenate([part.rows.ravel() for part in parts])
        weighted = jnp.sum(rows * jnp.arange(rows.size))
        return jnp.where(jnp.any(rows == 9), jnp.inf, value), {**metrics, "fed": weighted}

    recipe = dataclasses.replace(
        plain, steps=200, objective=plain.objective._replace(loss=loss), settings={"bad": 9})
    real = toy if on_device else toy_on_host
    with pytest.raises(NonFiniteError, match="non_finite.json holds the step"):
        run(recipe, real, workdir=tmp_path)
    failure = json.loads((tmp_path / "non_finite.json").read_text())
    assert failure["loss"] is None and failure["run"]["settings"] == {"bad": 9}
    assert failure["follows_checkpoint"] == failure["step"] - 1
    (rows,) = failure["rows"].values()
    rows = np.ravel(rows)
    assert 9 in rows and failure["fed"] == np.sum(rows * np.arange(rows.size))
    with pytest.raises(NonFiniteError):
        run(recipe, real, workdir=tmp_path)
    assert json.loads((tmp_path / "non_finite.json").read_text()) == failure


@pytest.mark.parametrize("loss,message", [
    (lambda s, state, b, k: (s.images, {}), "scalar"),
    (lambda s, state, b, k: None, "dry run"),
    (lambda s, state, b, k: 1.0, "dry run"),
    (lambda s, state, b, k: (s.images.sum() + s.no_such_field, {}), "no_such_field"),
    (lambda s, state, b, k: (s.images.sum(), {"per_class": jnp.zeros(3)}), "'per_class'.*scalar"),
])
def test_bad_objectives_are_refused_before_compiling(tiny_recipe, toy, loss, message):
    recipe = tiny_recipe("dm")
    bad = dataclasses.replace(recipe, objective=recipe.objective._replace(loss=loss))
    with pytest.raises(ConfigError, match=message):
        run(bad, toy)


def test_an_objective_that_keeps_a_traced_array_is_refused(tiny_recipe, toy):
    recipe, kept = tiny_recipe("dm"), []

    def loss(synthetic, state, batch, key):
        kept.append(jnp.mean(synthetic.images))
        return recipe.objective.loss(synthetic, state, batch, key)[0] + kept[0], {}

    bad = dataclasses.replace(recipe, objective=recipe.objective._replace(loss=loss))
    with pytest.raises(ConfigError, match="traced"):
        run(bad, toy)


def test_f51_out_of_memory_keeps_the_last_checkpoint(tiny_recipe, toy, tmp_path, monkeypatch):
    recipe = tiny_recipe("dm", steps=6)
    recipe = dataclasses.replace(recipe, objective=recipe.objective._replace(
        variants={"adjoint='recursive'": None}))
    whole = run(recipe, toy)
    advance, calls = Stepper._on_device, []

    def exhausted(self, state, limit):
        calls.append(limit)
        if len(calls) == 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return advance(self, state, 1)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "_on_device", exhausted)
        with pytest.raises(DeviceMemoryError, match="after step 3 of 6; step 3 is saved") as error:
            run(recipe, toy, workdir=tmp_path, save_every=1)
    for told in ("dm", "B of working memory", "RESOURCE_EXHAUSTED", "adjoint='recursive'", "ipc"):
        assert told in str(error.value)
    np.testing.assert_array_equal(images(run(recipe, toy, workdir=tmp_path, save_every=1)),
                                  images(whole))


def test_an_objective_that_changes_its_state_is_refused(tiny_recipe, toy):
    recipe = tiny_recipe("dm")
    inner = recipe.objective
    bad = dataclasses.replace(recipe, objective=inner._replace(
        init=lambda key, synthetic: (inner.init(key, synthetic), jnp.zeros(2)),
        sample=lambda data, state, key: inner.sample(data, state[0], key),
        loss=lambda synthetic, state, batch, key: inner.loss(synthetic, state[0], batch, key),
        advance=lambda synthetic, state, batch, key: (state[0], jnp.zeros(3))))
    with pytest.raises(ConfigError, match="shapes"):
        run(bad, toy)


@pytest.mark.parametrize("options", [{"key": "abc"}, {"key": 1.5}, {"log_every": 0},
                                     {"save_every": -1}, {"save_every": 0},
                                     {"save_seconds": float("nan")}, {"save_seconds": -1.0}])
def test_bad_options_are_refused_before_anything_is_made(tiny_recipe, toy, options, tmp_path):
    with pytest.raises(ConfigError, match=next(iter(options))):
        run(tiny_recipe("dm"), toy, workdir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps,wrap,rate,said", [
    (12, lambda x: x, 0.0, "dm: the set has not moved for 1[0-2] steps, .* rate 0"),
    (101, lambda x: 0.0 * x, 0.1, "dm: the gradient has been zero for 10[01] steps"),
    (12, lambda x: x, 0.1, None),
], ids=["no rate", "no gradient", "moving"])
def test_a_run_that_stands_still_says_so_once(steps, wrap, rate, said, tiny_recipe, toy):
    recipe = tiny_recipe("dm", steps=steps, learning_rate=rate)
    inner = recipe.objective

    def loss(*args):
        value, metrics = inner.loss(*args)
        return wrap(value), metrics

    recipe = dataclasses.replace(recipe, objective=inner._replace(loss=loss))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        run(recipe, toy)
    ours = [str(w.message) for w in found if str(w.message).startswith("dm: ")]
    assert len(ours) == (0 if said is None else 1)
    assert said is None or re.match(said, ours[0])
