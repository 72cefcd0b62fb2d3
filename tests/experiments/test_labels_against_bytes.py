"""Accuracy against bytes of labels, on a toy set: what is computed, kept, shared and refused."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from dd_jax import store
from dd_jax.errors import DataError, DDJaxError
from dd_jax.store.artefacts import ArtefactStore
from experiments import labels_against_bytes as experiment
from experiments import students

STORES = "full,full:cross_entropy,quant2,top1+pruned2"


def options(file, folder, **changes):
    return experiment.Options(**{**dict(
        data=str(file), ipc="2", teachers="mlp,convnet", teacher_widths="4,2", stores=STORES,
        seeds=2, steps=5, width=2, teacher_epochs=1, augmentation="dsa",
        json=folder / "out" / "cells.json", work=folder / "work"), **changes})


@pytest.fixture(scope="module")
def learned(file, tmp_path_factory):
    """A run folder with a set of soft labels, on half of random images."""
    data, folder = experiment.dd.data.load(str(file)), tmp_path_factory.mktemp("run")
    made = students.random_set(data, 3, ArtefactStore(folder / "work")).distilled
    synthetic = made.trainable()
    soft = jax.nn.softmax(3 * synthetic.labels)
    distilled = dataclasses.replace(
        made, synthetic=synthetic._replace(labels=np.asarray(soft)), label_kind="probabilities",
        recipe={"method": "mine", "ipc": 3.0})
    store.save(folder / "set.safetensors", distilled)
    return folder


def test_it_goes_on_where_it_was_stopped_and_computes_nothing_twice(
        file, tmp_path, monkeypatch, capsys):
    wanted, calls, real = options(file, tmp_path), [], experiment.measured

    def stops_at_the_last(row, *args):
        calls.append(row)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return real(row, *args)

    monkeypatch.setattr(experiment, "measured", stops_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        experiment.main(wanted)
    kept = json.loads(wanted.json.read_text())["cells"]
    each = ["one soft label", "live teacher", *STORES.split(",")]
    assert [cell["told"]["told"] for cell in kept] == ["labels", *each, *each[:-1]]
    assert [cell.get("teacher") for cell in kept] == [None, *["mlp"] * 6, *["convnet"] * 5]
    assert kept[1]["teacher_options"] == {"width": 4}
    for cell in kept:
        assert len(cell["accuracies"]) == 2 and all(0 <= a <= 1 for a in cell["accuracies"])
        assert {"command", "versions", "device", "load", "git_commit"} <= set(cell)
        assert (cell["images"], cell["image_bytes"], cell["test_steps"]) == (4, 4 * 64, 5)
    # Four images in one batch, five epochs: labels, half precision, the variables, a store.
    found = [cell["bytes"] for cell in kept[:7]]
    data = experiment.dd.data.load(str(file))
    row = experiment.rows_of(wanted, data, ArtefactStore(wanted.work))[2]
    variables = row.artefact.stand_in().variables
    assert found[:2] == [16, 16] and found[3:5] == [80, 80] and row.told == "live teacher"
    assert found[2] == sum(4 * leaf.size for leaf in jax.tree.leaves(variables))
    assert [cell["loss"] for cell in kept[:7]] == [
        "auto", "kl@4", "kl@4", "kl@4", "cross_entropy", "kl@4", "cross_entropy"]
    files = [path for path in (tmp_path / "label_stores").iterdir() if path.is_file()]
    assert len(files) == 3 + 2  # those of a loss of their own are shared
    sizes = sorted(store.open_views(path).bytes for path in files)
    assert sizes == sorted([*found[3:4], *found[5:], *(c["bytes"] for c in kept[9:10]),
                            *(c["bytes"] for c in kept[11:])])

    experiment.main(wanted)
    shown = capsys.readouterr().out
    assert len(calls) == 14 and shown.count("already") == 12 and "its accuracy" in shown
    assert len([p for p in wanted.work.iterdir() if p.name.startswith("tested_teacher-")]) == 2
    cells = json.loads(wanted.json.read_text())["cells"]
    assert cells[:12] == kept and len(cells) == 13
    assert wanted.json.with_suffix(".png").stat().st_size > 1000
    text = wanted.json.with_suffix(".md").read_text()
    assert text.count("\n| random, 2 per class |") == 13 and "| full:cross_entropy |" in text

    def never(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(experiment, "measured", never)
    experiment.main(dataclasses.replace(wanted, teachers="convnet", teacher_widths="2"))
    for change in ({"seeds": 3}, {"steps": 6}, {"stores": "quant4"}, {"ipc": "2,3"},
                   {"teacher_epochs": 2}, {"teacher_widths": "5,2"}, {"augmentation": "none"}):
        with pytest.raises(AssertionError, match="computed again"):
            experiment.main(dataclasses.replace(wanted, **change))


def test_a_saved_set_is_told_its_own_labels(file, learned, tmp_path):
    wanted = options(file, tmp_path, ipc="", sets=(learned,), teachers="mlp", teacher_widths="4",
                     stores="")
    experiment.main(wanted)
    labels, soft, live = json.loads(wanted.json.read_text())["cells"]
    assert labels["set"] == "mine, 3 per class" and (labels["images"], labels["bytes"]) == (6, 48)
    assert labels["image_bytes"] == 6 * 64 * 4  # in single precision
    assert "teacher" not in labels["told"] and soft["told"]["teacher"] == live["told"]["teacher"]
    data = experiment.dd.data.load(str(file))
    row = experiment.rows_of(wanted, data, ArtefactStore(wanted.work))[0]
    again = experiment.evaluate(row.made.distilled, data.test, protocol=row.protocol, key=0,
                                seeds=2)
    assert again.accuracies.tolist() == labels["accuracies"]


def test_the_table_and_the_lines_by_hand():
    own = {"set": "a", "told": {"told": "labels"}, "loss": "auto", "accuracy_mean": 0.5,
           "accuracy_std": 0.01, "bytes": 40, "image_bytes": 400}
    taught = {**own, "teacher": "mlp", "teacher_accuracy": 0.9, "told": {"told": "full"},
              "loss": "kl@4", "accuracy_mean": 0.625, "bytes": 8000}
    less = {**taught, "told": {"told": "top2"}, "bytes": 400, "accuracy_mean": 0.6}
    _, rows = experiment.table([own, taught])
    assert rows == [("a", "-", "-", "labels", "auto", "50.0 ± 1.0", "40", "0.1"),
                    ("a", "mlp", "90.0", "full", "kl@4", "62.5 ± 1.0", "8,000", "20")]
    other = {**taught, "teacher": "vit"}
    assert experiment.series([own, taught, less, other]) == {
        "a, mlp": ([0.1, 1.0, 20.0], [50.0, 60.0, 62.5]), "a, vit": ([0.1, 20.0], [50.0, 62.5])}


@pytest.mark.parametrize("change,said", [
    ({"stores": "full,half"}, "'half'"), ({"stores": "top9"}, "9"), ({"stores": "full:kk"}, "kk"),
    ({"stores": "top1:kl@4"}, "compares logits"), ({"ipc": "2,x"}, "ipc is '2,x'"),
    ({"ipc": "0"}, "ipc is 0"), ({"ipc": "99"}, "198 are asked"), ({"ipc": ""}, "there is no set"),
    ({"teachers": "convnett,mlp"}, "convnet"), ({"teacher_widths": "4"}, "teacher_widths is '4'"),
    ({"augmentation": "blur"}, "'blur'"), ({"steps": 0}, "steps is 0"),
    ({"sets": ("nowhere.safetensors",)}, "nowhere"),
], ids=str)
def test_what_cannot_work_is_refused_before_anything_is_trained(
        file, tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(experiment, "measured", None)
    change = {**change, "sets": tuple(map(tmp_path.joinpath, change.get("sets", ())))}
    with pytest.raises(DDJaxError, match=said):
        experiment.main(options(file, tmp_path, **change))
    assert not (tmp_path / "out" / "cells.json").exists()


def test_numbers_of_networks_are_whole_and_no_set_comes_twice(file, learned, tmp_path):
    for name in ("seeds", "width", "teacher_epochs"):
        with pytest.raises(DDJaxError, match=f"{name} is 0"):
            options(file, tmp_path, **{name: 0})
    with pytest.raises(DDJaxError, match="given twice"):
        experiment.main(options(file, tmp_path, sets=(learned, learned / "set.safetensors")))


def test_foreign_files_are_not_overwritten(file, tmp_path):
    wanted = options(file, tmp_path)
    wanted.json.parent.mkdir()
    for text in ('{"cells": [{"seconds": 1}]}', "[]", "{"):
        wanted.json.write_text(text)
        with pytest.raises(DataError, match="cells.json"):
            experiment.main(wanted)
        assert wanted.json.read_text() == text
