"""The read-out experiment on a toy set: its figures are those of the library's functions."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dd_jax as dd
from dd_jax import evaluate, io
from dd_jax.synthetic import targets
from experiments import read_outs


@pytest.fixture
def files(tmp_path, toy):
    """The toy data as a file, and a set of two of its images."""
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    np.savez(tmp_path / "toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    recipe = dd.methods.recipe("dm", toy, width=4, depth=1, batch_size=8, steps=6)
    rows = np.array([0, 1])
    model = dd.data.normalise(recipe.normaliser, toy.images[rows])
    wanted = targets(labels[rows], 2, kind=recipe.label_kind)
    distilled = dd.distill.package(recipe, dd.SyntheticSet(model, wanted), toy)
    io.save(tmp_path / "a" / "set.safetensors", distilled)
    return tmp_path


def test_figures_of_a_set(files, toy, capsys):
    path = files / "a" / "set.safetensors"
    words = [str(path), "--kernel", "fc1", "--draws", "2", "--data", str(files / "toy.npz"),
             "--into", str(files / "out")]
    assert read_outs.main(words) == 0
    found = json.loads((files / "out" / "read_out_dm_ipc1_fc1_cpu.json").read_text())
    alone = evaluate.read_out(io.load(path), toy, by=evaluate.ReadOut("fc1"))
    assert found["accuracy"] == alone.mean > 0.5
    assert (found["set"], found["draws"], found["kernel"]) == ("a", 2, "fc1")
    assert "dm 1 per class, fc1" in capsys.readouterr().out


def test_an_unknown_kernel_is_told(files, capsys):
    words = [str(files / "a" / "set.safetensors"), "--kernel", "fc",
             "--data", str(files / "toy.npz"), "--into", str(files / "out")]
    assert read_outs.main(words) == 2
    assert "'fc'" in capsys.readouterr().err
    assert not (files / "out").exists()
