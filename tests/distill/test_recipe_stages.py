"""What happens around the outer loop: what it needs, moving average, finishing, no step at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.distill import Plan, distillation
from dd_jax.distill.needs import arrays
from dd_jax.errors import CheckpointError, ConfigError, RunStopped
from dd_jax.store.artefacts import ArtefactStore


def images(distilled):
    return np.asarray(distilled.synthetic.images)


def run(recipe, data, **options):
    return dd.distill(recipe, data, **{"show_progress": False, "key": 0, **options})


def test_average_is_the_bias_corrected_mean_of_the_steps(tiny_recipe, toy):
    recipe = tiny_recipe("dm", steps=4)
    decay = 0.7
    d = distillation(dataclasses.replace(recipe, average=decay))
    state = jax.jit(d.init)(jax.random.key(0), toy)
    step = jax.jit(lambda s: d.step(s, d.fetch(toy, d.sample(s, toy)))[0])
    np.testing.assert_array_equal(d.decode(state).images, state.params["images"])
    seen = []
    for _ in range(4):
        state = step(state)
        seen.append(np.asarray(state.params["images"], np.float64))
    weights = decay ** np.arange(4)[::-1]
    wanted = np.tensordot(weights / weights.sum(), np.stack(seen), 1)
    np.testing.assert_allclose(d.decode(state).images, wanted, atol=1e-5)
    assert np.abs(wanted - seen[-1]).max() > 1e-3


def test_the_average_does_not_change_the_steps_and_is_what_is_saved(tiny_recipe, toy, tmp_path):
    recipe = tiny_recipe("dm", steps=4)
    averaged = dataclasses.replace(recipe, average=0.9)
    plain = run(recipe, toy)
    made = run(averaged, toy, workdir=tmp_path / "a", save_every=2)
    assert not np.array_equal(images(plain), images(made))
    loaded = dd.load(tmp_path / "a" / "set.safetensors")
    np.testing.assert_array_equal(images(loaded), images(made))
    with pytest.raises(CheckpointError):
        run(recipe, toy, workdir=tmp_path / "a")


@pytest.mark.parametrize("decay", [0.0, 1.0, -1, float("nan")])
def test_impossible_averages_are_refused(decay, tiny_recipe):
    with pytest.raises(ConfigError, match="average"):
        dataclasses.replace(tiny_recipe("dm"), average=decay)


def test_finalise_is_applied_once_to_the_finished_set(tiny_recipe, toy):
    recipe = tiny_recipe("dm", steps=2)

    def finalise(synthetic, data, key):
        assert data.spec == toy.spec and key.shape == ()
        return synthetic._replace(images=synthetic.images + 1)

    made = run(dataclasses.replace(recipe, finalise=finalise), toy)
    np.testing.assert_allclose(images(made), images(run(recipe, toy)) + 1, rtol=1e-6)


def shifted(recipe, *, seed=0, compute=None):
    """A plan whose start is shifted by a number that is made of the real images."""

    def shift(data, key):
        return {"shift": jnp.mean(data.images / 255.0) + jax.random.normal(key, ())}

    def build(have):
        def start(data, key):
            plain = recipe.start(data, key)
            return plain._replace(images=plain.images + have["shift"]["shift"])

        return dataclasses.replace(recipe, start=start)

    need = arrays("shift", {}, compute or shift, seed=seed,
                  like=lambda: {"shift": jax.ShapeDtypeStruct((), jnp.float32)})
    return Plan({"shift": need}, build, settings=recipe.settings)


def never(data, key):
    raise AssertionError("made")


def test_a_need_is_made_once_and_is_what_the_recipe_is_built_with(tiny_recipe, toy, tmp_path):
    recipe, store = tiny_recipe("dm", steps=2), ArtefactStore(tmp_path / "store")
    made = [run(shifted(recipe), toy, workdir=tmp_path / name, artefacts=store) for name in "ab"]
    np.testing.assert_array_equal(images(made[0]), images(made[1]))
    assert [how for _, how, _ in store.report] == ["made", "reused"]
    complete = dd.distill.complete(shifted(recipe), toy, artefacts=store)
    value = shifted(recipe).needs["shift"]
    assert complete.settings["needs"] == {"shift": value.address(toy)}
    moved = complete.start(toy, jax.random.key(1)).images
    plain = recipe.start(toy, jax.random.key(1)).images
    np.testing.assert_allclose(moved, plain + store.get(value, toy)["shift"], atol=1e-6)
    assert dd.distill.complete(complete, toy) is complete


@pytest.mark.parametrize("other", ["no needs", "another need", "other settings as well"])
def test_another_runs_folder_is_refused_before_anything_is_made(
    other, tiny_recipe, toy, tmp_path
):
    """Else hours of work end in a refusal."""
    recipe = tiny_recipe("dm", steps=2)
    run(recipe if other == "no needs" else shifted(recipe), toy, workdir=tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    now = tiny_recipe("dm", steps=3) if "settings" in other else recipe
    plan, said = shifted(now, seed=1, compute=never), "settings.needs"
    with pytest.raises(CheckpointError, match=said) as error:
        run(plan, toy, workdir=tmp_path / "run")
    assert ("settings.steps: 2 in the folder, 3 now" in str(error.value)) == ("settings" in other)
    with pytest.raises(CheckpointError, match=said):
        dd.distill.progressive(plan, toy, stages=2, workdir=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "block_1")
    with pytest.raises(CheckpointError, match=said):
        dd.distill.boosted(lambda n: plan, toy, blocks=2, workdir=tmp_path)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}


def test_what_a_recipe_refuses_is_refused_before_anything_is_made(tiny_recipe, toy, tmp_path):
    plan = shifted(tiny_recipe("dm"), compute=never).then(dd.distill.flipped)
    with pytest.raises(ConfigError, match="flipped already"):
        run(plan.then(dd.distill.flipped), toy, artefacts=tmp_path)


def test_a_run_is_bound_to_the_needs_that_it_was_built_with(tiny_recipe, toy, tmp_path):
    recipe = tiny_recipe("dm", steps=2)
    first, other = (dd.distill.complete(shifted(recipe, seed=s), toy) for s in (0, 1))
    made = run(first, toy, workdir=tmp_path)
    np.testing.assert_array_equal(images(made), images(run(shifted(recipe), toy, key=0)))
    with pytest.raises(CheckpointError, match="settings.needs.shift"):
        run(other, toy, workdir=tmp_path)


def test_a_signal_while_a_need_is_made_ends_the_run_after_it_is_kept(tiny_recipe, toy, tmp_path):
    def stopped(data, key):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"shift": jnp.float32(1)}

    recipe, store = tiny_recipe("dm", steps=2), ArtefactStore(tmp_path / "store")
    with pytest.raises(RunStopped, match="SIGTERM after shift was there.*again to continue"):
        run(shifted(recipe, compute=stopped), toy, artefacts=store, workdir=tmp_path / "run")
    assert [entry.finished for entry in store.entries()] == [True]
    run(shifted(recipe, compute=never), toy, artefacts=store, workdir=tmp_path / "run")


def test_a_set_without_steps_is_made_saved_and_found_again(toy, tmp_path):
    recipe = dd.methods.recipe("label_solve", toy, protocol="cpu", ipc=2, evaluation_width=4)
    assert recipe.steps == 0
    made = [run(recipe, toy, workdir=tmp_path) for _ in "ab"]
    np.testing.assert_array_equal(made[0].synthetic.labels, made[1].synthetic.labels)
    stored = dd.load(tmp_path / "set.safetensors")
    np.testing.assert_array_equal(stored.synthetic.labels, made[0].synthetic.labels)
    assert stored.recipe["steps"] == 0 and np.ptp(stored.synthetic.labels) > 0
    with pytest.raises(CheckpointError, match="settings.ipc: 2 in the folder, 3 now"):
        run(dd.methods.recipe("label_solve", toy, protocol="cpu", ipc=3, evaluation_width=4), toy,
            workdir=tmp_path)
