"""The experiment on losses, on a toy set: lessons, what is computed, timed, kept and refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import evaluate, labels
from dd_jax.errors import ConfigError, DataError, DDJaxError
from dd_jax.labels.losses import LOSSES, named, parse
from dd_jax.labels.losses.ferkd import Judged
from experiments import lessons
from experiments import losses as experiment

ASKED = ("kl@4", "dkd", "vl2v", "lelp", "reweighted", "ferkd", "meal_v2", "taid", "square_head")


def options(file, folder, **changes):
    return experiment.Options(**{**dict(
        data=str(file), ipc=2, losses=ASKED, teacher_width=8, seeds=2, steps=4, width=2,
        teacher_epochs=2, timed_steps=3, rounds=2, json=folder / "out" / "cells.json",
        work=folder / "work"), **changes})


def test_every_loss_is_told_or_has_a_reason(file, tmp_path):
    data = experiment.dd.data.load(str(file))
    bench = experiment.Bench(options(file, tmp_path, teacher_width=None), data)
    refused = {name: bench.refused(parse(name)) for name in LOSSES}
    reasons = {name: reason for name, reason in refused.items() if reason}
    assert set(reasons) == {"augmix", "integer_cross_entropy", "ldr", "adaptive_ldr", "taid",
                            "swing", "sla", "mst", "distillm2"}
    assert "three views" in reasons["augmix"] and "class numbers" in reasons["ldr"]
    assert "several teachers" in reasons["mst"]
    assert not (tmp_path / "work").exists() or not [
        p for p in (tmp_path / "work").iterdir() if p.name.startswith("tested_teacher-")]


def test_it_goes_on_where_it_was_stopped_and_computes_nothing_twice(
        file, tmp_path, monkeypatch, capsys):
    wanted, calls, real = options(file, tmp_path), [], experiment.Bench.measured

    def stops_at_the_last(self, name, loss):
        calls.append(name)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(self, name, loss)

    monkeypatch.setattr(experiment.Bench, "measured", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        experiment.main(wanted)
    whole = json.loads(wanted.json.read_text())
    kept = whole["cells"]
    assert [cell["name"] for cell in kept] == list(ASKED[:6]) == calls[:6]
    assert set(whole["untold"]) == {"taid", "square_head"}
    assert "taps" in whole["untold"]["square_head"]
    for cell in kept:
        assert len(cell["accuracies"]) == 2 and all(0 <= a <= 1 for a in cell["accuracies"])
        assert {"command", "versions", "device", "load", "git_commit"} <= set(cell)
        assert cell["step_seconds"] > 0 and cell["baseline_step_seconds"] > 0
        assert cell["compile_seconds"] > 0 and cell["timed_steps"] == 3
        assert [len(turns) for turns in cell["turns"].values()] == [2, 2]

    experiment.main(wanted)
    shown = capsys.readouterr().out
    assert len(calls) == 8 and shown.count("already") == 6 and "- taid: takes how far" in shown
    cells = json.loads(wanted.json.read_text())["cells"]
    assert cells[:6] == kept and len(cells) == 7
    text = wanted.json.with_suffix(".md").read_text()
    assert text.count("\n| ") == 2 + 7 and "- square_head: taps" in text

    # As `evaluate` has it.
    data = experiment.dd.data.load(str(file))
    bench = experiment.Bench(wanted, data)
    again = evaluate.evaluate(
        bench.made.distilled, data.test, protocol=bench.protocol, key=0, seeds=2,
        supervision=labels.teacher(*bench.room.pair, loss=parse("kl@4")))
    assert again.accuracies.tolist() == cells[0]["accuracies"]

    def never(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(experiment.Bench, "measured", never)
    experiment.main(dataclasses.replace(wanted, losses=("dkd", "kl")))
    for change in ({"seeds": 3}, {"steps": 5}, {"losses": ("kl@2",)}, {"ipc": 3}, {"rounds": 3},
                   {"teacher_epochs": 3}, {"teacher_width": 4}, {"augmentation": "none"}):
        with pytest.raises(AssertionError, match="computed again"):
            experiment.main(dataclasses.replace(wanted, **change))


def test_ferkd_as_a_calibrated_teacher_is_the_loss(file, tmp_path):
    """Its lesson's loss of real images against FerKD's own function of the same words."""
    data = experiment.dd.data.load(str(file))
    bench = experiment.Bench(options(file, tmp_path), data)
    room = bench.room_of(lessons.EmptyRoom, bench.artefact.stand_in())
    network, student = room.master.network, room.student
    variables = jax.tree.map(lambda x: 3 * x, network.init(jax.random.key(3)))
    room = dataclasses.replace(room, master=room.master._replace(variables=variables))
    said = jax.nn.softmax(network.apply(variables, room.images).logits)
    low, middle, high = (float(x) for x in np.quantile(said.max(axis=1), (0.25, 0.5, 0.9)))
    loss = named("ferkd", low=low, middle=middle, high=high)
    by = lessons.lesson(loss, room)
    views = labels.Views(room.images, jnp.eye(2)[room.labels], None, None, None)
    logits = student.apply(student.init(jax.random.key(4)), views.images).logits
    told = by.supervision.targets(by.supervision.arrays, views)
    assert 0.2 < float((told.sum(axis=1) == 0).mean()) < 0.5
    np.testing.assert_allclose(by.supervision.loss(logits, told),
                               loss(logits, Judged(said, jnp.asarray(room.labels))), rtol=1e-5)


def test_the_table_by_hand():
    first = {"name": "kl@4", "accuracy_mean": 0.5, "accuracy_std": 0.02, "step_seconds": 0.01,
             "baseline_step_seconds": 0.01, "compile_seconds": 2.0, "takes": "logits"}
    near = {**first, "name": "js", "accuracy_mean": 0.51, "accuracy_std": 0.0}
    far = {**first, "name": "dkd", "accuracy_mean": 0.53, "accuracy_std": 0.01,
           "step_seconds": 0.012}
    _, rows = experiment.table([first, near, far])
    assert rows == [("kl@4", "50.0 ± 2.0", "+0.0", "-", "10.00", "1.00", "2.0", "logits"),
                    ("js", "51.0 ± 0.0", "+1.0", "no", "10.00", "1.00", "2.0", "logits"),
                    ("dkd", "53.0 ± 1.0", "+3.0", "yes", "12.00", "1.20", "2.0", "logits")]


@pytest.mark.parametrize("change,said", [
    ({"losses": ("kk",)}, "'kk'"), ({"losses": ("kl@0",)}, "temperature is 0"),
    ({"losses": ("kl+js",)}, "sum of losses"), ({"ipc": 99}, "198 are asked for"),
    ({"teacher": "convnett"}, "convnet"), ({"augmentation": "blur"}, "'blur'"),
    ({"steps": 0}, "steps is 0"), ({"set": "nowhere.safetensors"}, "nowhere"),
], ids=str)
def test_what_cannot_work_is_refused_before_anything_is_trained(
        file, tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(experiment.Bench, "measured", None)
    if "set" in change:
        change = {"set": tmp_path / change["set"]}
    with pytest.raises(DDJaxError, match=said):
        experiment.main(options(file, tmp_path, **change))


def test_numbers_are_whole(file, tmp_path):
    for name in ("seeds", "width", "teacher_epochs", "ipc", "timed_steps", "rounds"):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            options(file, tmp_path, **{name: 0})


def test_foreign_files_are_not_overwritten(file, tmp_path):
    wanted = options(file, tmp_path)
    wanted.json.parent.mkdir()
    for text in ('{"cells": [{"seconds": 1}]}', "[]", "{"):
        wanted.json.write_text(text)
        with pytest.raises(DataError, match="cells.json"):
            experiment.main(wanted)
        assert wanted.json.read_text() == text
