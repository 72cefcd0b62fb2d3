"""Steps that read a store: in compiled functions, in stopped runs, beside images on the host."""

from __future__ import annotations

import dataclasses
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dd_jax as dd
from dd_jax import nets, objectives
from dd_jax.data import standardise
from dd_jax.data.fetch import fetch
from dd_jax.errors import CheckpointError, NonFiniteError, RunStopped
from dd_jax.run.workdir import Workdir
from dd_jax.store.trajectories import describe, open_trajectories, write_expert
from dd_jax.store.trajectory_file import open_expert
from dd_jax.train import student
from dd_jax.transforms.rate_space import in_rate_space
from dd_jax.types import Batch, HostRows
from tests.laws import members

NETWORK, SPAN, STEPS = nets.mlp(members.SPEC, width=4, depth=2), 2, 5


def write_walks(folder, data, count=3, **changes):
    """Files of experts that nobody trained."""
    walks = members.Walks(NETWORK, experts=count, **changes)
    for i, rows in enumerate(walks.rows):
        write_expert(folder, i, rows, description=describe(
            NETWORK, data, normaliser=standardise(data), training={}))
    return walks


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy):
    path = tmp_path_factory.mktemp("experts")
    write_walks(path, toy)
    return path


@pytest.fixture(scope="module")
def build(folder, toy):
    """(folder, rates) -> a recipe of trajectory matching."""
    plain = dd.methods.recipe("dm", toy, ipc=2, width=2, depth=1, start="real", evaluation_width=2)

    def build(folder=folder, *, rate=0.1, image_rate=1.0):
        trajectories = open_trajectories(folder, normaliser=plain.normaliser)
        matching = objectives.trajectory_matching(
            student(NETWORK, steps=3, batch_size=3), objectives.Segments(trajectories, SPAN),
            starts=objectives.StartEpochs(0, 2, first=1, until=3))
        rates = {"images": optax.sgd(image_rate, momentum=0.5),
                 "learning_rate": in_rate_space(optax.sgd(1e-3, momentum=0.5))}
        return dataclasses.replace(
            plain, objective=matching, optimizer=rates, steps=STEPS, average=0.9,
            settings={"rate": rate, "image_rate": image_rate, "experts": trajectories.digest},
            start=lambda data, key: plain.start(data, key)._replace(
                learning_rate=jnp.float32(rate)))

    return build


@pytest.fixture(scope="module")
def recipe(build):
    return build()


def run(recipe, data, **options):
    return dd.distill(recipe, data, **{"show_progress": False, "log_every": 1, **options})


@pytest.fixture(scope="module")
def whole(recipe, toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    return path, run(recipe, toy, workdir=path)


def test_a_stopped_run_continues_to_the_same_bits(recipe, toy, whole, tmp_path):
    def tell(step, metrics):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStopped, match="SIGTERM after step 2.*step 2 is saved"):
        run(recipe, toy, workdir=tmp_path, callbacks=[tell])
    run(recipe, toy, workdir=tmp_path)
    for name in ("set.safetensors", "metrics.jsonl"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_images_on_the_host_give_the_same_set(recipe, toy_on_host, whole):
    synthetic = run(recipe, toy_on_host).synthetic
    np.testing.assert_allclose(synthetic.images, whole[1].synthetic.images, atol=1e-5)
    np.testing.assert_allclose(synthetic.learning_rate, whole[1].synthetic.learning_rate, rtol=1e-5)


def test_other_experts_are_another_run(build, toy, whole, tmp_path):
    write_walks(tmp_path, toy, seed=1)
    with pytest.raises(CheckpointError, match="settings.experts"):
        run(build(tmp_path), toy, workdir=whole[0])


def test_a_population_reads_a_segment_for_each_member_and_steps_by_it(recipe, toy, folder):
    d = dd.distillation(recipe)

    def one(seed):
        state = d.init(jax.random.key(seed), toy)
        # As after some steps, when segments start at more epochs than one.
        state = state._replace(objective=jax.tree.map(lambda step: step + 3, state.objective))
        rows = d.sample(state, toy)
        batch = d.fetch(toy, rows)
        return state, rows, batch, d.step(state, batch)[1]["loss"]

    states, rows, found, losses = jax.jit(jax.vmap(one))(jnp.arange(4))
    assert isinstance(rows, HostRows)
    expert, epoch = map(np.asarray, rows.index)
    assert len(set(expert.tolist())) > 1 and len(set(epoch.tolist())) > 1
    stored = open_trajectories(folder)
    np.testing.assert_array_equal(found.epoch, epoch)
    np.testing.assert_array_equal(found.start, stored.read(expert, epoch))
    np.testing.assert_array_equal(found.target, stored.read(expert, epoch + SPAN))
    # One member by itself, its batch read on the host.
    state = jax.tree.map(lambda x: x[2], states)
    batch = rows.store.read((expert[2], epoch[2]))
    np.testing.assert_allclose(jax.jit(d.step)(state, batch)[1]["loss"], losses[2], rtol=1e-4)


def test_stored_and_real_rows_side_by_side(toy):
    class Halves:
        def read(self, index):
            return np.asarray(index, np.float32) + 0.5

        def like(self, index):
            return jax.ShapeDtypeStruct(index.shape, jnp.float32)

    rows = {"stored": HostRows(jnp.arange(3), Halves()), "real": jnp.array([5, 1])}
    found = jax.jit(lambda: fetch(toy, rows))()
    np.testing.assert_array_equal(found["stored"], [0.5, 1.5, 2.5])
    assert isinstance(found["real"], Batch)
    np.testing.assert_array_equal(found["real"].images, np.asarray(toy.images)[[5, 1]])


def test_f33_an_exploding_student_ends_the_run_with_the_state_before(
    build, toy, tmp_path, monkeypatch
):
    """At a million times the rate."""
    seen, kept = [], []
    monkeypatch.setattr(Workdir, "save", lambda self, step, state: kept.append((step, state)))
    with pytest.raises(NonFiniteError, match="the state before that step is kept") as error:
        run(build(rate=0.1 * 1e6), toy, workdir=tmp_path,
            callbacks=[lambda step, metrics: seen.append(metrics["update_norm"])])
    assert f"step {len(seen)} " in str(error.value) and len(seen) < STEPS
    assert not np.isfinite(seen[-1]) and np.all(np.isfinite(seen[:-1]))
    assert len(kept) == (len(seen) > 1)  # before the first step there is nothing to keep
    for step, state in kept:
        assert step == len(seen) - 1 == int(state.step)
        for leaf in jax.tree.leaves((state.params, state.average, state.optimizer)):
            assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("on_device", [True, False])
def test_rows_that_are_damaged_after_they_were_opened_are_named(
    on_device, build, toy, toy_on_host, tmp_path, caplog
):
    """In the words of the store that found it, not of the program that asked for it."""
    write_walks(tmp_path, toy)
    opened = build(tmp_path)  # of which headers alone are read
    for path in tmp_path.iterdir():
        offset, whole = open_expert(path).offset, path.read_bytes()
        path.write_bytes(whole[:offset] + bytes(len(whole) - offset))
    with pytest.raises(CheckpointError, match="is damaged: row . is not what was written"):
        run(opened, toy if on_device else toy_on_host)
    assert not caplog.records  # and without a traceback of another thread
