"""A folder belongs to one run from the moment it is opened; its small files may be damaged."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest

from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.run.jsonfile import read_json
from dd_jax.run.lock import RunLock
from dd_jax.run.workdir import claim, open_workdir, seconds_spent

RUN = {"method": "dm", "settings": {"lr": 0.1, "clip": None}, "seed": 2**70}
DEEP = "[" * 3000 + "]" * 3000
HUGE = "1" + "0" * 400


def finished(folder, identity=RUN):
    with open_workdir(folder, identity) as work:
        work.metrics(0).write(1, {"loss": 1.0})
        work.save(1, {"x": np.ones(3)})
        (folder / "set.safetensors").write_bytes(b"the set")


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_owner_stands_there_before_anything_else(tmp_path):
    with open_workdir(tmp_path / "run", RUN):
        known = json.loads((tmp_path / "run" / "run.json").read_text())
        assert known["identity"]["method"] == "dm" and "jax" in known["versions"]
        assert "jax_enable_x64" in known["identity"]["switches"]
    with open_workdir(None, RUN) as nothing:
        assert nothing.path is None and nothing.metrics(0) is None
        nothing.save(1, {})


@pytest.mark.parametrize("gone", [[], ["checkpoints"], ["run.json"],
                                  ["checkpoints", "metrics.jsonl"]])
def test_another_run_is_refused_and_changes_nothing(gone, tmp_path):
    finished(tmp_path)
    for name in gone:
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = contents(tmp_path)
    other = {**RUN, "settings": {"lr": 0.2}}
    with pytest.raises(CheckpointError, match="settings.lr: 0.1 in the folder, 0.2 now"):
        with open_workdir(tmp_path, other):
            pass
    with pytest.raises(CheckpointError, match="settings.lr"):
        claim(tmp_path, other)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("clip", [float("nan"), float("inf")])
def test_what_the_set_s_file_could_not_hold_is_refused_before_anything_is_written(clip, tmp_path):
    with pytest.raises(ConfigError, match="identity.settings.clip is (nan|inf), which JSON cannot"):
        claim(tmp_path, {**RUN, "settings": {"clip": clip}})
    assert "run.json" not in contents(tmp_path)


def test_a_staged_run_and_a_single_one_do_not_share_a_folder(tmp_path):
    staged = {"method": "dm", "stages": 3}
    finished(tmp_path / "single")
    with pytest.raises(CheckpointError, match=r"stages: \(absent\) in the folder, 3 now"):
        claim(tmp_path / "single", staged)
    finished(claim(tmp_path / "staged", staged) / "stage_1")
    claim(tmp_path / "staged", staged)
    with pytest.raises(CheckpointError, match="stages: 3 in the folder"):
        with open_workdir(tmp_path / "staged", RUN):
            pass


def test_a_claim_alone_does_not_bind(tmp_path):
    claim(tmp_path, RUN)
    claim(tmp_path, {**RUN, "seed": 1})
    finished(tmp_path, {**RUN, "seed": 1})
    with pytest.raises(CheckpointError, match="seed"):
        claim(tmp_path, RUN)


def test_other_switches_are_refused_by_name(tmp_path):
    finished(tmp_path)
    said = "switches.jax_enable_x64: False in the folder, True now"
    with jax.enable_x64(True), pytest.raises(CheckpointError, match=said):
        claim(tmp_path, RUN)
    claim(tmp_path, RUN)


def test_a_claim_waits_for_nobody_and_names_what_is_wrong(tmp_path):
    with RunLock(tmp_path), pytest.raises(CheckpointError, match="in use by pid"):
        claim(tmp_path, RUN)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        claim(tmp_path / "file", RUN)
    with pytest.raises(ConfigError, match="identity.f is a function"):
        claim(tmp_path, {"f": lambda: 0})


@pytest.mark.parametrize("text", ["", '{"identity": {"meth', "[]", "{}", '{"identity": 3}', DEEP,
                                  f'{{"identity": {DEEP}}}', '{"identity": [' + "1" * 5000,
                                  "\0\xff"])
def test_a_damaged_run_json_is_told_and_written_again(text, tmp_path):
    finished(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.warns(UserWarning, match="run.json is damaged and is written again"):
        with open_workdir(tmp_path, RUN) as work:
            assert work.restore({"x": np.zeros(3)})[0] == 1
    assert read_json(tmp_path / "run.json")["identity"]["method"] == "dm"
    (tmp_path / "run.json").write_text(text)
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="method"):
        claim(tmp_path, {"method": "dc"})  # the checkpoints still know


@pytest.mark.parametrize("text", ["", "{", "3", "{}", '{"seconds": true}', '{"seconds": "5"}',
                                  *(f'{{"seconds": {x}}}' for x in
                                    ("NaN", "1e999", "-1e999", "-5", HUGE, DEEP, "1" * 5000))])
def test_a_damaged_seconds_json_is_told_and_written_again(text, tmp_path):
    finished(tmp_path)
    (tmp_path / "seconds.json").write_text(text)
    with pytest.warns(UserWarning, match="seconds.json is damaged"):
        assert seconds_spent(tmp_path) == 0.0
    with pytest.warns(UserWarning, match="seconds.json is damaged"):
        with open_workdir(tmp_path, RUN) as work:
            work.note_time(1)
    assert 0.0 <= seconds_spent(tmp_path) < 60.0
    (tmp_path / "seconds.json").unlink()
    assert seconds_spent(tmp_path) == 0.0  # and no warning


@pytest.mark.parametrize("gone", [True, False])
def test_a_set_whose_run_nobody_knows_is_not_overwritten(gone, tmp_path):
    finished(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "run.json").unlink() if gone else (tmp_path / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="finished set.safetensors, and neither run.json"):
        claim(tmp_path, RUN)
    assert (tmp_path / "set.safetensors").read_bytes() == b"the set"


TESTED = {**RUN, "settings": {"lr": 0.1, "evaluation_epochs": 5}, "log_every": 10,
          "evaluation": {"plan": {"epochs": 5}}}


def changed(**settings):
    return {**TESTED, "settings": {**TESTED["settings"], **settings}, "log_every": 3,
            "evaluation": {"plan": {"epochs": 9}}}


def test_how_a_run_is_logged_and_its_set_tested_is_free_to_change(tmp_path):
    finished(tmp_path, TESTED)
    with open_workdir(tmp_path, changed(evaluation_epochs=9)) as work:
        assert work.restore({"x": np.zeros(3)})[0] == 1
    assert read_json(tmp_path / "run.json")["identity"]["log_every"] == 3
    with pytest.raises(CheckpointError, match="settings.lr: 0.1 in the folder, 0.2 now") as error:
        claim(tmp_path, changed(evaluation_epochs=9, lr=0.2))
    assert "log_every" not in str(error.value) and "epochs" not in str(error.value)


def test_stages_are_bound_to_the_test_that_networks_between_them_take(tmp_path):
    finished(tmp_path, {**TESTED, "stages": 2})
    with pytest.raises(CheckpointError, match="evaluation.plan.epochs: 5 in the folder, 9 now"):
        claim(tmp_path, {**changed(), "stages": 2})
