"""A patient teacher's students on a toy set: what is computed, kept and refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dd_jax.errors import ConfigError, DataError, DDJaxError
from experiments import patient as experiment


def options(file, folder, **changes):
    return experiment.Options(**{**dict(
        data=str(file), ipc="2", epochs=2, doublings=1, seeds=2, width=2, teacher_width=2,
        teacher_epochs=1, json=folder / "out" / "cells.json", work=folder / "work"), **changes})


def test_it_goes_on_where_it_was_stopped_and_computes_nothing_twice(
        file, tmp_path, monkeypatch, capsys):
    wanted, calls, real = options(file, tmp_path), [], experiment.measured

    def stops_at_the_last(row, *args):
        calls.append(row)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(row, *args)

    monkeypatch.setattr(experiment, "measured", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        experiment.main(wanted)
    kept = json.loads(wanted.json.read_text())["cells"]
    assert [(cell["epochs"], cell["told"]["told"]) for cell in kept] == [
        (2, "teacher"), (2, "labels"), (4, "teacher")]
    for cell in kept:
        assert len(cell["accuracies"]) == 2 and all(0 <= a <= 1 for a in cell["accuracies"])
        assert {"command", "versions", "device", "load", "git_commit"} <= set(cell)
        assert cell["test_steps"] == cell["epochs"]  # one batch
        protocol = cell["told"]["protocol"]
        assert protocol["views"] == {"augmentation": "inception", "cutmix": 0.0, "mixup": 1.0}
        assert protocol["optimizer"]["schedule"] == "warmup_cosine"
        by_teacher = cell["told"]["told"] == "teacher"
        assert by_teacher == ("teacher_accuracy" in cell) == (cell["told"].get("loss") == "kl@4")

    experiment.main(wanted)
    shown = capsys.readouterr().out
    assert len(calls) == 5 and shown.count("already") == 3 and "the teacher's own" in shown
    assert len([p for p in wanted.work.iterdir() if p.name.startswith("tested_teacher-")]) == 1
    cells = json.loads(wanted.json.read_text())["cells"]
    assert cells[:3] == kept and len(cells) == 4
    assert wanted.json.with_suffix(".png").stat().st_size > 1000
    assert "| random, 2 per class | 4 | 4 |" in wanted.json.with_suffix(".md").read_text()

    def never(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(experiment, "measured", never)
    experiment.main(dataclasses.replace(wanted, doublings=0))
    for change in ({"seeds": 3}, {"doublings": 2}, {"epochs": 3}, {"norm": "instance"},
                   {"supervision": "kl@2"}, {"teacher_width": 3}, {"patience": "pets_fast"}):
        with pytest.raises(AssertionError, match="computed again"):
            experiment.main(dataclasses.replace(wanted, **change))


def test_labels_do_not_depend_on_the_teacher(file, tmp_path):
    data = experiment.dd.data.load(str(file))
    store = experiment.ArtefactStore(tmp_path / "work")
    both = [options(file, tmp_path), options(file, tmp_path, teacher_width=3, supervision="js")]
    rows = [experiment.rows_of(some, data, store) for some in both]
    for place, told in enumerate(experiment.TOLD):
        one, other = (experiment.told_of(found[place], some, data)
                      for found, some in zip(rows, both))
        assert one["told"] == told and (one == other) == (told == "labels")


def test_the_table_and_the_lines_by_hand():
    taught = {"set": "a", "epochs": 8, "told": {"told": "teacher"}, "accuracy_mean": 0.625,
              "accuracy_std": 0.02, "test_steps": 8000, "test_seconds": 2.5,
              "teacher_accuracy": 0.9}
    own = {**taught, "told": {"told": "labels"}, "accuracy_mean": 0.5}
    longer = [{**cell, "epochs": 16} for cell in (taught, own)]
    _, rows = experiment.table([taught, own])
    assert rows == [("a", "8", "8,000", "62.5 ± 2.0", "50.0 ± 2.0", "+12.5", "2", "90.0")]
    assert experiment.series([taught, own, *longer]) == {
        "a, teacher": ([8, 16], [62.5, 62.5]), "a, labels": ([8, 16], [50.0, 50.0])}


@pytest.mark.parametrize("change,said", [
    ({"patience": "pets_fat"}, "pets_fast"), ({"supervision": "kk"}, "'kk'"),
    ({"supervision": "taid"}, "taid"), ({"ipc": "x"}, "ipc is 'x'"), ({"ipc": ""}, "no set"),
    ({"teacher": "convnett"}, "convnet"), ({"norm": "bach"}, "batch"),
], ids=str)
def test_what_cannot_work_is_refused_before_anything_is_trained(
        file, tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(experiment, "measured", None)
    with pytest.raises(DDJaxError, match=said):
        experiment.main(options(file, tmp_path, **change))


def test_lengths_are_whole(file, tmp_path):
    assert options(file, tmp_path, epochs=3, doublings=3).lengths == [3, 6, 12, 24]
    for change, said in (({"epochs": 0}, "epochs is 0"), ({"doublings": -1}, "doublings is -1")):
        with pytest.raises(ConfigError, match=said):
            options(file, tmp_path, **change)


def test_foreign_files_are_not_overwritten(file, tmp_path):
    wanted = options(file, tmp_path)
    wanted.json.parent.mkdir()
    for text in ('{"cells": [{"seconds": 1}]}', "[]", "{"):
        wanted.json.write_text(text)
        with pytest.raises(DataError, match="cells.json"):
            experiment.main(wanted)
        assert wanted.json.read_text() == text
