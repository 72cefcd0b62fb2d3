"""Long runs in pieces: a piece goes on from the last one, and carries what it needs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import subprocess
from functools import partial

import jax
import numpy as np
import pytest

import dd_jax as dd
from dd_jax import methods, store
from dd_jax.data import from_arrays
from dd_jax.errors import CheckpointError, ConfigError, DataError
from experiments import cells, gpu, gpu_carry, gpu_piece, gpu_speed
from experiments.gpu_piece import Run, restore_state, save_state

HERE = pathlib.Path(gpu.__file__).parent


def ticking(each=1.0):
    """A clock that moves by so many seconds a look."""
    times = itertools.count()
    return lambda: each * next(times)


def test_pieces_end_in_the_bits_of_one_run(tmp_path, toy, tiny_recipe):
    recipe = tiny_recipe("dm", steps=2, augmentation="none")
    whole = Run(tmp_path / "whole", {"a": 1})
    whole.begin(1)
    assert whole.distil(recipe, toy, seed=3, until=float("inf"))
    saves = []
    for piece in itertools.count(1):
        run = Run(tmp_path / "parts", {"a": 1}, ticking())
        run.begin(piece)
        done = run.distil(recipe, toy, seed=3, until=0.0, saved=partial(saves.append, piece))
        run.end()
        if done:
            break
    assert piece == 2 and set(saves) == {1, 2}, "one step a piece, whatever the time"
    assert [(p["from"], p["to"]) for p in run.progress["pieces"]] == [(0, 1), (1, 2)]
    assert run.progress["anew"] == [] and all(p["whole"] for p in run.progress["pieces"])
    one, other = (store.load(tmp_path / name / "set.safetensors").synthetic.images
                  for name in ("whole", "parts"))
    np.testing.assert_array_equal(one, other)


def test_a_large_state_is_saved_without_its_pool(tmp_path, toy, tiny_recipe):
    recipe = tiny_recipe("frepo")
    d, key = dd.distillation(recipe), jax.random.key(0)
    state = jax.jit(d.init)(key, toy)._replace(step=jax.numpy.asarray(3, jax.numpy.int32))
    assert not save_state(tmp_path / "state.safetensors", state, most=10)
    found, anew = restore_state(tmp_path / "state.safetensors", recipe, d, key, toy)
    assert anew and int(found.step) == 3
    for name in ("key", "params", "optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(state, name))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (found.objective, state.objective))
    assert shapes[0] == shapes[1]
    pools = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(s.objective)])
             for s in (found, state)]
    assert not np.array_equal(*pools), "new networks, not those of the beginning"

    assert save_state(tmp_path / "state.safetensors", state)
    found, anew = restore_state(tmp_path / "state.safetensors", recipe, d, key, toy)
    assert not anew
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_pieces_follow_each_other(tmp_path):
    def opened(identity=None):
        return Run(tmp_path, identity or {"share": 1.0})

    run = opened()
    with pytest.raises(CheckpointError, match="piece 2 .* follows 0"):
        run.begin(2)
    run.begin(1)
    run.keep()
    run = opened()  # the first piece was cut off: it is run again
    run.begin(1)
    run.end()
    with pytest.raises(CheckpointError, match="run piece 2"):
        opened().begin(1)
    with pytest.raises(CheckpointError, match="carry what piece 2 left"):
        opened().begin(3)
    opened().begin(2)
    with pytest.raises(CheckpointError, match="other settings"):
        opened({"share": 0.5})
    (tmp_path / "progress.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        opened()


def test_a_folder_travels_in_parts(tmp_path):
    folder, out = tmp_path / "dm_ipc1", tmp_path / "out"
    (folder / "artefacts" / "bank-1").mkdir(parents=True)
    (folder / "state.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "artefacts" / "bank-1" / "a.bin").write_bytes(b"abc")
    (folder / ".rubbish.tmp").write_bytes(b"1")
    (out).mkdir()
    (out / "dm_ipc1.carry.9").write_bytes(b"of an older piece")
    told = gpu_carry.pack(folder, out, part=4096)
    names = [path.name for path in gpu_carry.part_names("dm_ipc1", out)]
    assert told["files"] == names and len(names) > 2 and told["left_out"] == []
    assert max(path.stat().st_size for path in out.iterdir()) <= 4096

    assert gpu_carry.unpack("dm_ipc1", out, tmp_path / "there")
    there = {str(p.relative_to(tmp_path / "there")): p.read_bytes()
             for p in (tmp_path / "there").rglob("*") if p.is_file()}
    assert there == {"state.safetensors": bytes(range(256)) * 40,
                     "artefacts/bank-1/a.bin": b"abc"}
    assert not gpu_carry.unpack("frepo_ipc1", out, tmp_path / "nowhere")
    (out / names[0]).write_bytes(b"no archive")
    with pytest.raises(DataError, match="carry all parts"):
        gpu_carry.unpack("dm_ipc1", out, tmp_path / "damaged")


def test_more_than_ten_parts_keep_their_order(tmp_path):
    folder, out = tmp_path / "a", tmp_path / "out"
    folder.mkdir()
    (folder / "x").write_bytes(np.random.default_rng(0).bytes(30_000))
    assert len(gpu_carry.pack(folder, out, part=2000)["files"]) > 10
    gpu_carry.unpack("a", out, tmp_path / "b")
    assert (tmp_path / "b" / "x").read_bytes() == (folder / "x").read_bytes()


def test_what_is_too_large_is_left_out_and_told(tmp_path):
    (tmp_path / "artefacts" / "bank-1").mkdir(parents=True)
    (tmp_path / "artefacts" / "bank-1" / "a").write_bytes(bytes(100))
    (tmp_path / "artefacts" / "bank-1" / "b").write_bytes(bytes(100))
    (tmp_path / "state").write_bytes(bytes(60))
    kept, left = gpu_carry.chosen(tmp_path, most=200)
    assert [path.name for path in kept] == ["state"] and left == ["artefacts/bank-1/a"]


def options(tmp_path, data, **changes):
    values = dict(job="dm_ipc1", seconds=1e6, share=1e-4, width=2, data=str(data), full=False,
                  folder=tmp_path / "runs", carry=tmp_path / "carry", out=tmp_path / "out",
                  changes='{"depth": 1, "batch_size": 4, "augmentation": "none"}')
    return gpu.Options(**{**values, **changes})


def test_from_the_first_piece_to_the_result(tmp_path, toy, monkeypatch, capsys):
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    np.savez(tmp_path / "toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    monkeypatch.setattr(gpu_piece, "unit", lambda name, *args: 0.25 if "random" in name else 0.5)
    first = gpu.main(options(tmp_path, tmp_path / "toy.npz", seconds=1e-6))
    assert not first["finished"] and (first["from"], first["to"], first["steps"]) == (0, 1, 2)
    assert first["settings"]["steps"] == 2 and first["carry"]["bytes"] < 2**20
    (tmp_path / "out").rename(tmp_path / "carry")
    (tmp_path / "runs").rename(tmp_path / "gone")  # another machine

    last = gpu.main(options(tmp_path, tmp_path / "toy.npz", piece=2))
    assert last["finished"] and (last["from"], last["to"]) == (1, 2)
    assert len(last["tests"]) == 10
    told = json.loads((tmp_path / "out" / "dm_ipc1_piece2.json").read_text())
    assert told["tests"] == last["tests"] and told["ended"]
    result = dd.report.result.read_result(tmp_path / "out" / "dm_ipc1_official.json")
    assert (result["accuracy_mean"], result["random_mean"], result["networks"]) == (0.5, 0.25, 5)
    assert result["protocol"] == "official, trial of 0.0001" and result["pieces"] == 2
    assert store.load(tmp_path / "out" / "dm_ipc1.set.safetensors").recipe["method"] == "dm"
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["finished"]


def test_a_network_of_each_kind_is_tested(toy, tiny_recipe):
    recipe = tiny_recipe("dm")
    started = recipe.start(toy, jax.random.key(0))
    distilled = dd.distill.package(recipe, started, toy)
    short = dd.evaluate.protocol("t", network="mlp", width=4, depth=1, epochs=1, full_epochs=1)
    data = dd.types.Split(toy, toy)
    for kind in ("set", "random", "full"):
        assert 0 <= gpu_piece.unit(f"{kind}_0", distilled, recipe, short, data, 0) <= 1


def test_tests_go_on_in_the_next_piece_and_none_is_begun_too_late(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "load", lambda path: None)
    done = []
    monkeypatch.setattr(gpu_piece, "unit", lambda name, *args: done.append(name) or 0.5)
    protocol = dd.evaluate.protocol("t", seeds=2)

    def piece(number, until, length, stepped=False):
        run = Run(tmp_path, {}, ticking(10.0))
        run.begin(number)
        run.current["to"] += int(stepped)
        finished = run.test(None, protocol, None, seed=0, full=True, until=until, length=length)
        run.end()
        return finished

    assert not piece(1, 100.0, 1000.0, stepped=True) and done == [], "nobody knows how long one is"
    assert not piece(2, 15.0, 1000.0) and done == ["set_0"], "a piece that did nothing begins one"
    assert not piece(3, 38.0, 1000.0)
    assert done == ["set_0", "set_1"], "10 seconds each, and less than 11 are left"
    assert piece(4, 1e6, 1e6) and done[2:] == ["random_0", "random_1", "full_0"]


@pytest.fixture(scope="module")
def grey():
    """2,000 images of ten classes in the shape of the list's data."""
    images = np.random.default_rng(0).integers(0, 256, (2000, 28, 28, 1), np.uint8)
    return from_arrays(images, np.arange(2000) % 10)


@pytest.mark.parametrize("method", gpu.METHODS)
def test_every_job_can_be_built(method, grey):
    for name, job in gpu.JOBS.items():
        if job.method == method:
            settings = gpu.settings_of(job, gpu.Options(name))
            assert settings == methods.preset(method, "official", job.ipc, **job.changes)
            recipe = cells.stood_in(methods.plan_with(method, settings, grey))
            assert recipe.steps >= 1000


@pytest.mark.parametrize("change,message", [
    (dict(job="dm_ipc2"), "dm_ipc1"), (dict(seconds=0.0), "seconds is"), (dict(share=0.0), "share"),
    (dict(changes="{"), "JSON object"), (dict(changes="[1]"), "JSON object"),
    (dict(changes='{"stepz": 1}'), "steps"),
], ids=["job", "seconds", "share", "changes", "list", "setting"])
def test_what_cannot_be_is_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        gpu.main(options(tmp_path, "embedded", **change))
    assert not (tmp_path / "runs").exists()


def test_the_list_names_every_job(capsys):
    gpu.main(gpu.Options())
    shown, page = capsys.readouterr().out, (HERE / "gpu.md").read_text()
    for name in (*gpu.JOBS, *gpu_speed.RACES):
        assert name in shown and f"`{name}`" in page
    assert list(gpu.JOBS)[0] == "frepo_ipc1" and "200,000" in shown


def test_a_race_counts_steps_of_the_same_work(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_speed, "measure",
                        lambda steps: asked.append(steps) or {"median_steps_per_second": 100.0})
    monkeypatch.setattr(gpu_speed, "rival", lambda name, **kw: {"seconds": 0.3})
    found = gpu.main(options(tmp_path, "embedded", job="speed_idc", share=0.01))
    assert found["ours_seconds"] == pytest.approx(0.1) and found["ratio"] == pytest.approx(3.0)
    assert asked[0].steps == 4 and json.loads(asked[0].changes) == {"width": 2}
    assert json.loads((tmp_path / "out" / "speed_idc.json").read_text())["ratio"]
    monkeypatch.setattr(gpu_speed, "rival", lambda name, **kw: {"missing": "torch"})
    assert gpu.main(options(tmp_path, "embedded", job="speed_dm"))["ratio"] is None


def test_every_rival_has_a_step():
    pytest.importorskip("torch")
    from experiments.benchmarks import torch_step

    assert {race.rival for race in gpu_speed.RACES.values()} == set(torch_step.STEPS)
    for name, made in torch_step.STEPS.items():
        torch_step.timed(made(4), "cpu", 1) if name != "unrolled" else made(4)


def test_data_and_wheels_are_gathered(tmp_path):
    data, python = tmp_path / "data", tmp_path / "python"
    data.mkdir()
    for part, what in itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        (data / f"{part}-{what}-ubyte.gz").write_bytes(b"x")
    python.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/said"\n')
    python.chmod(0o755)

    def prepare(*words, place=data):
        return subprocess.run(["bash", HERE / "gpu_prepare.sh", *words], capture_output=True,
                              text=True, env={"PATH": "/usr/bin:/bin", "PYTHON": str(python),
                                              "DD_JAX_DATA": str(place)})

    ran = prepare(tmp_path / "out", "small", "--python-version", "3.12")
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "out" / "fashion_mnist").iterdir())) == 4
    said = (tmp_path / "said").read_text()
    assert "tyro" in said and "--python-version 3.12" in said and "jax[" not in said
    assert prepare(tmp_path / "out", "cuda").returncode == 0
    assert "jax[cuda13]" in (tmp_path / "said").read_text()
    assert "expected small or cuda" in prepare(tmp_path / "out", "all").stderr
    missing = prepare(tmp_path / "out", "small", place=tmp_path / "nowhere")
    assert missing.returncode == 2 and "set DD_JAX_DATA" in missing.stderr


def test_options_know_where_results_go(tmp_path, monkeypatch):
    monkeypatch.delenv("OUT", raising=False)
    given = gpu.Options(folder=tmp_path)
    assert given.place == tmp_path / "out"
    monkeypatch.setenv("OUT", "/there")
    assert given.place == pathlib.Path("/there")
    assert dataclasses.replace(given, out=tmp_path).place == tmp_path
