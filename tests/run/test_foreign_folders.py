"""A run's folder may come from anybody: no link is followed in it, no pipe waited for."""

from __future__ import annotations

import os
import sys

import jax
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.errors import CheckpointError, SetFileError
from dd_jax.run.checkpoint import Checkpoints
from dd_jax.run.identity import check_identity, warn_of_other_conditions
from dd_jax.run.jsonfile import parsed, read_json
from dd_jax.run.lock import OWNER_NAME, RunLock
from dd_jax.run.metrics import MetricsWriter, read_metrics
from dd_jax.run.workdir import inner_folder, open_workdir, seconds_spent

RUN = {"method": "dm", "seed": 0}
DEEP = b'{"a":' * 200 + b"1" + b"}" * 200

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")


@pytest.mark.parametrize("text", [
    b"", b"[1]", b"5", b"{", b'{"a": 1e999}', b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff\xfe{}",
    b'{"a": ' + b"1" * 5000 + b"}", DEEP, b"[" * 10**5, b" " * (16 * 2**20 + 1)], ids=range(12))
def test_every_small_file_is_read_within_the_same_bounds(tmp_path, text):
    with pytest.raises(ValueError) as caught:
        parsed(text)
    assert str(caught.value).startswith("it ") and len(str(caught.value)) < 400
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "a.json")


def test_links_in_the_place_of_small_files(tmp_path):
    for name in ("seconds.json", OWNER_NAME, "run.json"):
        (tmp_path / name).symlink_to("/dev/zero")
    with pytest.warns(UserWarning, match="seconds.json is damaged"):
        assert seconds_spent(tmp_path) == 0.0
    with pytest.warns(UserWarning, match="run.json is damaged"):
        with open_workdir(tmp_path, RUN) as work:
            work.note_time(1)
    for name in ("seconds.json", "run.json"):
        assert (tmp_path / name).is_file() and not (tmp_path / name).is_symlink()
    assert read_json(tmp_path / "run.json")["identity"]["method"] == "dm"


def test_pipes_in_the_place_of_small_files(tmp_path):
    for name in ("seconds.json", OWNER_NAME):
        os.mkfifo(tmp_path / name)
    with pytest.warns(UserWarning, match="seconds.json is damaged"), \
            open_workdir(tmp_path, RUN) as work:
        with pytest.warns(UserWarning, match="the time of this run is not written down"):
            work.note_time(1)
    (tmp_path / "run.json").unlink()
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(SetFileError, match="run.json is not a regular file"), \
            pytest.warns(UserWarning, match="run.json is damaged"):
        with open_workdir(tmp_path, RUN):
            pass


def test_a_pipe_in_the_place_of_metrics(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    for use in (MetricsWriter, read_metrics):
        with pytest.raises(CheckpointError, match="metrics.jsonl cannot be used"):
            use(tmp_path / "metrics.jsonl")


def test_folders_inside_that_lead_elsewhere(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "step_00000001.dropped").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match="checkpoints is a link"):
        with open_workdir(tmp_path / "run", RUN) as work:
            work.save(1, {"x": np.ones(3)})
    assert [path.name for path in elsewhere.iterdir()] == ["step_00000001.dropped"]
    (tmp_path / "run" / "stage_1").symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match="stage_1 is a link"):
        inner_folder(tmp_path / "run", "stage_1")
    assert inner_folder(tmp_path / "run", "stage_2").name == "stage_2"


def test_stages_and_blocks_are_not_written_through_links(tmp_path, toy, tiny_recipe, monkeypatch):
    def never(*args, **options):
        raise AssertionError("a stage was begun")

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    for name in ("stage_1", "block_1"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    recipe = tiny_recipe("dm", steps=1)
    for module in ("progressive", "boosted"):  # the package has functions of these names
        monkeypatch.setattr(sys.modules[f"dd_jax.distill.{module}"], "distill", never)
    with pytest.raises(CheckpointError, match="stage_1 is a link"):
        dd.distill.progressive(recipe, toy, stages=2, workdir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="block_1 is a link"):
        dd.distill.boosted(lambda count: recipe, toy, blocks=1, share=0.5,
                           workdir=tmp_path / "run")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_checkpoint_with_a_pipe_or_a_link_is_skipped(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", identity=RUN)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": np.full(3, step)})
    os.mkfifo(tmp_path / "c" / "step_00000003" / "state" / "pipe")
    (tmp_path / "c" / "step_00000004").symlink_to(tmp_path / "c" / "step_00000002")
    assert checkpoints.steps() == [2, 3]
    with pytest.warns(UserWarning, match="step 3 .*pipe in it is not a regular file"):
        step, state = checkpoints.restore({"x": np.zeros(3, int)})
    assert step == 2 and state["x"].tolist() == [2, 2, 2]


def test_what_a_foreign_folder_says_is_told_on_one_line(tmp_path):
    (tmp_path / OWNER_NAME).write_text('{"pid": 1, "host": "\\u001b[31m\\nOK"}')
    with pytest.warns(UserWarning, match=r"pid 1 on \\x1b\[31m\\nOK; taking"), RunLock(tmp_path):
        pass
    with pytest.raises(CheckpointError) as caught:
        check_identity({"a\nOK": "\x1b[31m", "b": 1}, {"b": 2})
    assert str(caught.value).isprintable() and "b: 1 in the folder, 2 now" in str(caught.value)
    with pytest.warns(UserWarning) as told:
        warn_of_other_conditions({"jax": "\x1b[31m" * 1000})
    assert "\x1b" not in str(told[0].message) and len(str(told[0].message)) < 1000


def test_switches_make_another_artefact(toy):
    from dd_jax.store.artefacts import Artefact

    usual = Artefact("mean", {}, print).address(toy)
    jax.config.update("jax_threefry_partitionable", False)
    try:
        assert Artefact("mean", {}, print).address(toy) != usual
    finally:
        jax.config.update("jax_threefry_partitionable", True)
    assert Artefact("mean", {}, print).address(toy) == usual


def test_what_cannot_be_noted_hides_no_reason(tmp_path):
    with open_workdir(tmp_path, RUN) as work:
        (tmp_path / "non_finite.json").mkdir()
        told = work.note_failure(3, {"loss": float("nan")}, lambda: {"batch": np.arange(2)},
                                 saved=2)
    assert "non_finite.json cannot be written" in told


def test_what_killed_saves_leave_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("years of work")
    (tmp_path / "c").mkdir()
    for name in ("step_00000001.orbax-checkpoint-tmp", "step_00000002.dropped"):
        (tmp_path / "c" / name).symlink_to(tmp_path / "elsewhere")
    Checkpoints(tmp_path / "c", identity=RUN).save(1, {"x": np.ones(3)})
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step_00000001"]
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["precious"]
