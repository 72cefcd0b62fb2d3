"""The time-to-accuracy experiment on a toy set: what it computes, keeps, counts and refuses."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from dd_jax.errors import ConfigError, DataError
from dd_jax.train import rs2_rows
from experiments import time_to_accuracy as experiment
from experiments.timed_training import Arm, Coreset, Trainer, Training

CHANGES = dict(width=2, depth=1, network_epochs=1, network_batch_size=16)


def options(file, folder, **changes):
    return experiment.Options(**{**dict(
        data=str(file), shares="0.3", changes=json.dumps(CHANGES), seeds=2, rounds=4, points=2,
        width=2, depth=1, batch_size=8, json=folder / "out" / "cells.json",
        work=folder / "work"), **changes})


def test_it_goes_on_where_it_was_stopped_and_computes_nothing_twice(
        file, tmp_path, monkeypatch, capsys):
    wanted, calls, real = options(file, tmp_path), [], Trainer.measured

    def stops_at_the_last(self, seed):
        calls.append(seed)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(self, seed)

    monkeypatch.setattr(Trainer, "measured", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        experiment.main(wanted)
    kept = json.loads(wanted.json.read_text())["cells"]
    assert [(c["told"]["arm"], c["told"]["seed"]) for c in kept] == [
        (arm, seed) for arm in ("full", "rs2_with", "rs2_without", "coreset") for seed in (0, 1)
    ][:7]
    # 64 images; of 19, of four blocks of which the last has 7, and of a coreset of 19.
    assert [c["steps"] for c in kept[::2]] == [32, 12, 10, 12]
    for cell in kept:
        assert cell["rounds_done"] == [2, 4] and len(cell["accuracies"]) == 2
        assert 0 < cell["seconds"][0] < cell["seconds"][1] and cell["compile_seconds"] > 0
        assert (cell["selection_seconds"] > 0) == (cell["told"]["arm"] == "coreset")
        assert all(0 <= a <= 1 for a in cell["accuracies"])
        assert {"command", "versions", "device", "load"} <= set(cell)
    assert kept[2]["accuracies"] != kept[3]["accuracies"] or kept[2]["told"] != kept[3]["told"]

    def never(*args, **kwargs):
        raise AssertionError("chosen again")

    with monkeypatch.context() as patched:
        patched.setattr(experiment.dd, "distill", never)
        experiment.main(wanted)
    assert len(calls) == 9
    shown = capsys.readouterr().out
    assert shown.count("already") == 7 and "RS2 without replacement, 30 %" in shown
    assert wanted.json.with_suffix(".png").stat().st_size > 1000
    cells = json.loads(wanted.json.read_text())["cells"]
    assert cells[:7] == kept and cells[7]["selection_seconds"] == cells[6]["selection_seconds"]

    monkeypatch.setattr(Trainer, "measured", never)
    experiment.main(wanted)
    for change in ({"rounds": 5}, {"seeds": 3}, {"rate": 0.2}, {"shares": "0.3,0.5"}):
        with pytest.raises(AssertionError, match="chosen again"):
            experiment.main(dataclasses.replace(wanted, **change))


@pytest.mark.parametrize("arm", [Arm("rs2_without", 0.3), Arm("coreset", 0.3), Arm("full")],
                         ids=lambda arm: arm.name)
def test_a_training_takes_what_it_says(arm):
    """Rows of all steps, by the batches that the compiled training is made of."""
    by = Training(None, 4, 1, 8, 0.1, 0.0)
    rows, key = np.arange(1, 38, 2, dtype=np.int32), jax.random.key(0)
    batches, taken = by.batches(arm, 64, key, rows), []
    for number in range(4):
        shared = batches.begin(jax.random.key(number), number)
        steps = batches.steps(number) if callable(batches.steps) else batches.steps
        for step in range(int(steps)):
            some, counted = batches.rows(shared, None, step)
            taken.append(np.asarray(some)[slice(None) if counted is None else counted > 0])
    assert len(taken) == by.steps(arm, 64, len(rows))
    taken = np.concatenate(taken)
    if arm.name == "rs2_without":
        found = [rs2_rows(key, 64, 0.3, j, replace=False) for j in range(4)]
        assert taken.tolist() == sum((r[c].tolist() for r, c in found), [])
    wanted = {"rs2_without": range(64), "coreset": np.tile(rows, 4),
              "full": np.tile(np.arange(64), 4)}[arm.name]
    assert sorted(taken.tolist()) == sorted(wanted)


def test_points_do_not_change_the_training_and_weights_reach_it(file):
    data = experiment.dd.data.load(str(file))
    normaliser = experiment.normalisers("published", data.train)
    wanted = options(file, file.parent)

    def last(weights, points=1):
        network = experiment.nets.convnet(data.train.spec, width=2, depth=1)
        trainer = Trainer(Training(network, 4, points, 8, 0.1, 5e-4), Arm("coreset", 0.3), data,
                          normaliser, Coreset(np.arange(20, dtype=np.int32), weights, 0.0))
        seen, trainer._accuracy = [], lambda variables: seen.append(variables) or 0.0
        trainer.measured(wanted.seed)
        return jax.tree.leaves(seen[-1])

    even = np.ones(20, np.float32)
    plain, again, twice = last(even), last(even, points=4), last(2 * even)
    other = last(np.linspace(0, 2, 20, dtype=np.float32))
    for a, b, c in zip(plain, again, twice):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-3, atol=1e-5)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(plain, other))


def test_the_table_by_hand():
    def cell(seconds, accuracies, before=0.0):
        return dict(seconds=seconds, accuracies=accuracies, compile_seconds=1.0, steps=8,
                    selection_seconds=before)

    found = {Arm("full"): [cell([2, 4], [0.5, 0.9]), cell([4, 6], [0.7, 0.9])],
             Arm("coreset", 0.1): [cell([1, 2], [0.4, 0.8], before=9.0)]}
    titles, rows = experiment.table(found, 0.6)
    assert titles[-1] == "60.0 after (s)"
    assert rows == [("all images", "8", "90.0 ± 0.0", "0.0", "6.0", "4.0"),
                    ("coreset, 10 %", "8", "80.0 ± 0.0", "9.0", "12.0", "12.0")]
    assert [row[-1] for row in experiment.table(found)[1]] == ["6.0", "-"]


@pytest.mark.parametrize("change,said", [
    ({"shares": "0.1,x"}, "shares is '0.1,x'"), ({"shares": "1.5"}, "share is 1.5"),
    ({"shares": "0.001"}, "is none"), ({"coreset": "dm"}, "dm does not choose"),
    ({"coreset": "moderat"}, "moderate"), ({"rounds": 0}, "rounds is 0"),
    ({"changes": "["}, "expected a JSON object"), ({"changes": '{"ipcs": 1}'}, "ipcs"),
], ids=str)
def test_what_cannot_work_is_refused_before_anything_is_trained(
        file, tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(experiment, "Trainer", None)
    with pytest.raises(ConfigError, match=said):
        experiment.main(options(file, tmp_path, **change))


def test_foreign_files_are_not_overwritten(file, tmp_path, monkeypatch):
    wanted = options(file, tmp_path)
    wanted.json.parent.mkdir()
    for text in ('{"cells": [{"seconds": 1}]}', "[]", "{"):
        wanted.json.write_text(text)
        with pytest.raises(DataError, match="cells.json"):
            experiment.main(wanted)
        assert wanted.json.read_text() == text
    wanted.work.mkdir()
    spoilt = wanted.work / "moderate_0.3.npz"
    spoilt.write_text("no rows")
    with pytest.raises(DataError, match="holds no coreset"):
        experiment.chosen(wanted, None, 0.3, "")
    assert spoilt.read_text() == "no rows"
