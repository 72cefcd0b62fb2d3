"""What happens around the outer loop: preparation, moving average, finishing."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.distill import Preparation, distillation, prepared
from dd_jax.errors import CheckpointError, ConfigError


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


def _needs_a_shift(recipe):
    """A recipe whose start is shifted by the mean of the real images."""

    def compute(data, key):
        return {"shift": jnp.mean(data.images / 255.0)}

    def complete(recipe, arrays):
        def initialise(data, key):
            start = recipe.initialise(data, key)
            return start._replace(images=start.images + arrays["shift"])

        return dataclasses.replace(recipe, initialise=initialise)

    return dataclasses.replace(recipe, prepare=Preparation(compute, complete))


def test_a_recipe_with_a_preparation_is_refused_until_prepared(tiny_recipe, toy):
    recipe = _needs_a_shift(tiny_recipe("dm"))
    with pytest.raises(ConfigError, match="prepared"):
        distillation(recipe)
    complete = prepared(recipe, toy, jax.random.key(0))
    shift = float(np.mean(toy.images / 255.0))
    start, plain = (r.initialise(toy, jax.random.key(1)).images
                    for r in (complete, tiny_recipe("dm")))
    np.testing.assert_allclose(start, plain + shift, atol=1e-6)


def test_preparation_runs_once_for_a_folder(tiny_recipe, toy, tmp_path):
    recipe = _needs_a_shift(tiny_recipe("dm", steps=2))
    first = run(recipe, toy, workdir=tmp_path)
    written = (tmp_path / "prepared.npz").stat().st_mtime_ns
    again = run(recipe, toy, workdir=tmp_path)
    assert (tmp_path / "prepared.npz").stat().st_mtime_ns == written
    np.testing.assert_array_equal(images(first), images(again))
    np.testing.assert_array_equal(images(first), images(run(recipe, toy)))


@pytest.mark.parametrize("damage", ["foreign", "empty", "truncated", "flipped"])
def test_a_damaged_preparation_is_named(damage, tiny_recipe, toy, tmp_path):
    recipe = _needs_a_shift(tiny_recipe("dm", steps=2))
    run(recipe, toy, workdir=tmp_path)
    path = tmp_path / "prepared.npz"
    whole = path.read_bytes()
    path.write_bytes({
        "foreign": b"not an archive", "empty": b"", "truncated": whole[: len(whole) // 2],
        "flipped": whole[:60] + bytes([whole[60] ^ 255]) + whole[61:],
    }[damage])
    with pytest.raises(CheckpointError, match="prepared.npz"):
        run(recipe, toy, workdir=tmp_path)


def test_another_runs_folder_is_refused_before_the_preparation(tiny_recipe, toy, tmp_path):
    run(tiny_recipe("dm", steps=2), toy, workdir=tmp_path)
    with pytest.raises(CheckpointError):
        run(_needs_a_shift(tiny_recipe("dm", steps=3)), toy, workdir=tmp_path)
    assert not (tmp_path / "prepared.npz").exists()


def test_a_run_is_bound_to_the_arrays_that_it_was_prepared_with(tiny_recipe, toy, tmp_path):
    def compute(data, key):
        return {"shift": jax.random.normal(key, ())}

    recipe = _needs_a_shift(tiny_recipe("dm", steps=2))
    recipe = dataclasses.replace(recipe, prepare=recipe.prepare._replace(compute=compute))
    first, other = (prepared(recipe, toy, jax.random.key(k)) for k in (0, 1))
    made = run(first, toy, workdir=tmp_path)
    np.testing.assert_array_equal(images(made), images(run(recipe, toy)))  # the same teacher
    with pytest.raises(CheckpointError):
        run(other, toy, workdir=tmp_path)
