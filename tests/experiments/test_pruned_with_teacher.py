"""Chosen images with a teacher beside, on a toy set: what is computed, kept, shared and refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dd_jax.errors import ConfigError, DataError
from experiments import pruned_with_teacher as experiment
from experiments.pruned_with_teacher import Cell


def options(file, folder, **changes):
    return experiment.Options(**{**dict(
        data=str(file), selectors="random,el2n", shares="0.1,0.3", seeds=2, steps=3, width=2,
        changes=json.dumps(dict(width=2, depth=1, network_epochs=1, network_batch_size=16,
                                networks=2)),
        teacher_epochs=2, teacher_batch_size=16, json=folder / "out" / "cells.json",
        work=folder / "work"), **changes})


def test_it_goes_on_where_it_was_stopped_and_computes_nothing_twice(
        file, tmp_path, monkeypatch, capsys):
    wanted, calls, real = options(file, tmp_path), [], experiment.measured

    def stops_at_the_last(cell, *args):
        calls.append(cell)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(cell, *args)

    monkeypatch.setattr(experiment, "measured", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        experiment.main(wanted)
    kept = json.loads(wanted.json.read_text())["cells"]
    assert calls == [Cell(name, share, told) for name in ("random", "el2n") for share in (0.1, 0.3)
                     for told in ("labels", "teacher")]
    assert len(kept) == 7 and [cell["images"] for cell in kept[:4]] == [6, 6, 19, 19]
    for cell in kept:
        assert len(cell["accuracies"]) == 2 and all(0 <= a <= 1 for a in cell["accuracies"])
        assert cell["test_steps"] >= 3 and {"command", "versions", "device"} <= set(cell)
        taught = cell["told"]["told"] == "teacher"
        assert ("teacher_accuracy" in cell) == taught == ("alpha" in cell["told"])
    assert kept[1]["told"]["alpha"] == 1.0  # few images of a class
    assert len({cell["teacher_accuracy"] for cell in kept[1::2]}) == 1

    experiment.main(wanted)
    shown = capsys.readouterr().out
    assert len(calls) == 9 and shown.count("already") == 7 and "teacher too" in shown
    teachers = [path for path in wanted.work.iterdir() if path.name.startswith("teacher-")]
    assert len(teachers) == 1  # el2n and random look through no network but their own
    cells = json.loads(wanted.json.read_text())["cells"]
    assert cells[:7] == kept and len(cells) == 8

    def never(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(experiment, "measured", never)
    experiment.main(wanted)
    experiment.main(dataclasses.replace(wanted, selectors="el2n", shares="0.3"))
    for change in ({"seeds": 3}, {"temperature": 2.0}, {"alpha": 0.5}, {"shares": "0.5"},
                   {"steps": 4}, {"teacher_epochs": 3}):
        with pytest.raises(AssertionError, match="computed again"):
            experiment.main(dataclasses.replace(wanted, **change))


def test_labels_do_not_depend_on_the_teacher(file, tmp_path):
    data = experiment.dd.data.load(str(file))
    one, other = options(file, tmp_path), options(file, tmp_path, temperature=2.0, alpha=0.3)
    for told, same in (("labels", True), ("teacher", False)):
        cell = Cell("random", 0.1, told)
        found = [experiment.told_of(cell, some, data, "0") for some in (one, other)]
        assert (found[0] == found[1]) == same


def test_the_part_of_the_teacher_follows_the_share(file, tmp_path):
    cell = Cell("random", 0.55, "teacher")
    assert experiment.alpha_in(cell, options(file, tmp_path)) == 0.75
    assert experiment.alpha_in(cell, options(file, tmp_path, alpha=0.2)) == 0.2


def test_the_table_by_hand():
    labels = {"accuracy_mean": 0.5, "accuracy_std": 0.01, "images": 60}
    taught = {"accuracy_mean": 0.625, "accuracy_std": 0.02, "images": 60, "told": {"alpha": 0.9},
              "teacher_accuracy": 0.9}
    cell = Cell("random", 0.01, "labels")
    _, rows = experiment.table({cell: labels, dataclasses.replace(cell, told="teacher"): taught})
    assert rows == [("random", "1 %", "60", "50.0 ± 1.0", "62.5 ± 2.0", "+12.5", "0.90", "90.0")]


@pytest.mark.parametrize("change,said", [
    ({"shares": "0.1,x"}, "shares is '0.1,x'"), ({"shares": "1.5"}, "share is 1.5"),
    ({"selectors": "dm"}, "dm does not choose"), ({"selectors": "herdin"}, "herding"),
    ({"seeds": 0}, "seeds is 0"), ({"changes": "["}, "expected a JSON object"),
    ({"alpha": 1.5}, "alpha is 1.5"), ({"steps": 0}, "evaluation_steps is 0"),
    ({"augmentation": "blur"}, "'blur'"),
], ids=str)
def test_what_cannot_work_is_refused_before_anything_is_trained(
        file, tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(experiment, "measured", None)
    with pytest.raises(ConfigError, match=said):
        experiment.main(options(file, tmp_path, **change))


def test_foreign_files_are_not_overwritten(file, tmp_path):
    wanted = options(file, tmp_path)
    wanted.json.parent.mkdir()
    for text in ('{"cells": [{"seconds": 1}]}', "[]", "{"):
        wanted.json.write_text(text)
        with pytest.raises(DataError, match="cells.json"):
            experiment.main(wanted)
        assert wanted.json.read_text() == text
