"""`evaluate --networks none`: a set by kernel regression alone, as the library has it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import dd_jax as dd
from dd_jax import evaluate, store
from dd_jax.cli.main import main
from dd_jax.synthetic import targets


@pytest.fixture
def files(tmp_path, toy):
    """The toy data as a file, and a set of two of its images."""
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    np.savez(tmp_path / "toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    recipe = dd.methods.recipe("dm", toy, width=4, depth=1, batch_size=8, steps=6)
    rows = np.array([0, 1])
    model = dd.data.normalise(recipe.normaliser, toy.images[rows])
    wanted = targets(labels[rows], 2, kind=recipe.labels.kind)
    distilled = dd.distill.package(recipe, dd.SyntheticSet(model, wanted), toy)
    store.save(tmp_path / "a" / "set.safetensors", distilled)
    return tmp_path


def words(files, *more):
    return ["evaluate", str(files / "a" / "set.safetensors"), "--networks", "none",
            "--data", str(files / "toy.npz"), "--json", str(files / "out" / "a.json"), *more]


def test_figures_of_a_set(files, toy, capsys):
    assert main(words(files, "--kernel", "fc1")) == 0
    found, = json.loads((files / "out" / "a.json").read_text())["results"]
    alone = evaluate.read_out(store.load(files / "a" / "set.safetensors"), toy,
                              by=evaluate.ReadOut("fc1"))
    assert found["accuracy_mean"] == alone.mean > 0.5
    assert found["kernel"]["kernel"] == "fc1" and 0.5 < found["random_mean"] <= 1.0
    assert "kernel fc1" in capsys.readouterr().out


@pytest.mark.parametrize("more,told", [(["--kernel", "fc"], "'fc'"), ([], "networks is 'none'"),
                                       (["--kernel", "none"], "networks is 'none'")])
def test_what_cannot_be_is_told(files, capsys, more, told):
    assert main(words(files, *more)) == 2
    assert told in capsys.readouterr().err
    assert not (files / "out").exists()
