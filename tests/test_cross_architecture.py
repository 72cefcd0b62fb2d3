"""The cross-architecture experiment on a toy set: what it computes, keeps and refuses."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import dd_jax as dd
from dd_jax import evaluate, store
from dd_jax.errors import ConfigError, DataError, SetFileError
from dd_jax.synthetic import targets
from experiments import cross_architecture as cross


@pytest.fixture(scope="module")
def folder(tmp_path_factory, toy):
    """The toy data as a file and two sets of four of its images, with short protocols."""
    folder = tmp_path_factory.mktemp("cross")
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    np.savez(folder / "toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    recipe = dd.methods.recipe("dm", toy, width=4, depth=1, batch_size=8, steps=6,
                               evaluation_width=4, evaluation_epochs=4)
    for name, rows in (("a", [0, 2, 1, 3]), ("b", [4, 6, 5, 7])):
        model = dd.data.normalise(recipe.normaliser, toy.images[np.array(rows)])
        wanted = targets(labels[rows], 2, kind=recipe.labels.kind)
        distilled = dd.distill.package(recipe, dd.SyntheticSet(model, wanted), toy)
        store.save(folder / name / "set.safetensors", distilled)
    return folder


def options(folder, tmp_path, *sets, **changes):
    values = dict(networks="convnet, mlp", seeds=2, width=8, data=str(folder / "toy.npz"),
                  json=tmp_path / "out" / "cells.json")
    return cross.Options(tuple(folder / name / "set.safetensors" for name in sets),
                         **{**values, **changes})


def test_a_table_survives_a_stop_and_is_not_computed_twice(folder, tmp_path, monkeypatch, capsys):
    wanted, calls, real = options(folder, tmp_path, "a", "b"), [], evaluate.evaluate_progressive

    def stops_at_the_fourth(*args, protocol, **kwargs):
        calls.append(protocol)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, protocol=protocol, **kwargs)

    monkeypatch.setattr(evaluate, "evaluate_progressive", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        cross.main(wanted)
    kept = json.loads(wanted.json.read_text())["cells"]
    assert [(c["set"], c["network"], c["own"]) for c in kept] == [
        ("a/set.safetensors", "convnet", True), ("a/set.safetensors", "mlp", False),
        ("b/set.safetensors", "convnet", True)]
    assert [(p.network.name, p.network.width, p.plan.epochs) for p in calls[:2]] == [
        ("convnet", 4, 4), ("mlp", 8, 4)]
    for cell in kept:
        assert len(cell["accuracies"]) == 2 and all(0 < a <= 1 for a in cell["accuracies"])
        assert cell["accuracy_mean"] == pytest.approx(np.mean(cell["accuracies"]))
        assert {"command", "versions", "device", "protocol"} <= set(cell)

    cross.main(wanted)
    assert len(calls) == 5 and calls[4].network.name == "mlp"
    shown = capsys.readouterr().out
    assert shown.count("already") == 3 and "mean drop" in shown
    cross.main(wanted)
    assert len(calls) == 5 and json.loads(wanted.json.read_text())["cells"][:3] == kept

    def refuse(*args, **kwargs):
        raise RuntimeError("computed")

    monkeypatch.setattr(evaluate, "evaluate_progressive", refuse)
    for change in ({"epochs": 3}, {"seeds": 1}, {"seed": 2}):
        with pytest.raises(RuntimeError, match="computed"):
            cross.main(dataclasses.replace(wanted, **change))
    # Another width leaves the set's own architecture as it was.
    capsys.readouterr()
    with pytest.raises(RuntimeError, match="computed"):
        cross.main(dataclasses.replace(wanted, width=9))
    assert "convnet (width 4)" in capsys.readouterr().out


def cell(network, mean):
    return dict(network=network, accuracy_mean=mean, accuracy_std=0.01)


def test_the_table_by_hand():
    cells = [[cell("convnet_doubling", 0.8), cell("convnet", 0.7), cell("mlp", 0.4)],
             [cell("convnet", 0.5), cell("mlp", 0.55)]]
    titles, rows = cross.table(["a", "b"], cells, ["convnet", "mlp"])
    assert titles == ("set", "own architecture", "convnet", "mlp", "mean drop", "worst")
    assert rows[0] == ("a", "convnet_doubling 80.0 ± 1.0", "70.0 ± 1.0", "40.0 ± 1.0", "25.0",
                       "mlp")
    assert rows[1] == ("b", "convnet 50.0 ± 1.0", "50.0 ± 1.0", "55.0 ± 1.0", "-5.0", "mlp")
    assert cross.table(["b"], [cells[1][:1]], ["convnet"])[1][0][-2:] == ("-", "-")


@pytest.mark.parametrize("change,error,message", [
    ({"networks": "mlp,vgg"}, ConfigError, "vgg11"), ({"seeds": 0}, ConfigError, "seeds is 0"),
    ({"networks": "mlp,vgg11"}, ConfigError, "8x8, expected at least 28x28"),
    ({"epochs": 0}, ConfigError, "epochs"), ({"sets": ()}, ConfigError, "no set"),
    ({"data": "embedded"}, SetFileError, "shape"),
], ids=["name", "seeds", "size", "epochs", "sets", "data"])
def test_what_cannot_work_is_refused_before_anything_is_trained(
    folder, tmp_path, monkeypatch, change, error, message
):
    monkeypatch.setattr(evaluate, "evaluate_progressive", None)
    with pytest.raises(error, match=message):
        cross.main(dataclasses.replace(options(folder, tmp_path, "a"), **change))


def test_a_foreign_file_is_not_overwritten(folder, tmp_path):
    for text in ('{"cells": [{"accuracy_mean": 1}]}', "[]", "{"):
        foreign = tmp_path / "foreign.json"
        foreign.write_text(text)
        with pytest.raises(DataError, match="foreign.json"):
            cross.main(options(folder, tmp_path, "a", json=foreign))
        assert foreign.read_text() == text
