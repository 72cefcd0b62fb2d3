"""The tuner: its grid, what it tells of a point, and that no point is computed twice."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from dd_jax.errors import ConfigError, DataError, NonFiniteError
from experiments import tune

# Settings that run in a second.
TINY = ("width=2", "depth=1", "evaluation_width=2", "batch_size=4", "evaluation_epochs=20",
        "augmentation=none")


@pytest.fixture(scope="module")
def file(tmp_path_factory, toy):
    path = tmp_path_factory.mktemp("tune") / "toy.npz"
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return path


def options(file, tmp_path, *scan, **changes):
    values = dict(data=str(file), artefacts=tmp_path / "artefacts", out=tmp_path / "tuning",
                  full=False)
    return tune.Options("dm", (*TINY, *scan), **{**values, **changes})


def kept(tmp_path):
    return json.loads((tmp_path / "tuning" / "dm_ipc1.json").read_text())


def test_a_grid():
    assert tune.scanned([]) == [{}]
    found = tune.scanned(["image-rate=1,1e-2", "start=real,noise", "width=null"])
    assert found == [
        {"image_rate": rate, "start": start, "width": None}
        for rate in (1, 0.01) for start in ("real", "noise")]


@pytest.mark.parametrize("word", ["rate", "rate=", "=1", "rate=1", ""])
def test_no_grid(word):
    with pytest.raises(ConfigError, match="--scan got"):
        tune.scanned(["rate=2", word])


def test_how_far_images_move():
    start = np.array([[3.0, 4.0], [1.0, 0.0]]).reshape(2, 2, 1, 1)
    end = start + np.array([[0.0, 1.0], [2.0, 0.0]]).reshape(2, 2, 1, 1)
    assert tune.moved(start, end) == pytest.approx((1 / 5 + 2) / 2)
    assert tune.moved(start, start) == 0.0
    assert np.isfinite(tune.moved(0 * start, end))


def test_the_ends_of_a_run():
    losses = np.arange(100.0)
    assert tune.ends(losses) == (2.0, 97.0)
    assert tune.ends([1.0]) == (1.0, 1.0)


def test_a_point_tells_of_a_tenth_of_the_run_and_of_its_test(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune, "ceiling", lambda *args: 0.75)
    asked = options(file, tmp_path, "steps=60", "learning_rate=100", full=True)
    tune.main(asked)
    (point,) = kept(tmp_path)["points"]
    assert point["steps"] == 6 and point["settings"]["steps"] == 6
    assert point["test_steps"] == 2 and len(point["accuracies"]) == 2
    assert point["moved"] > 0 and point["loss_first"] > 0 and point["full_mean"] == 0.75
    assert 0 <= point["accuracy_mean"] <= 1
    shown = capsys.readouterr().out
    assert "learning_rate" in shown and "75.0" in shown and "ceiling" in shown


def counted(monkeypatch):
    """Points are made up, and counted."""
    calls, ceilings = [], []

    def measured(point, recipe, data, options):
        calls.append(point["changes"])
        return {**point, "loss_first": 1.0, "loss_last": 0.5, "moved": 0.1, "steps": 6,
                "accuracy_mean": 0.5, "accuracy_std": 0.0, "test_steps": 2, "seconds": 1.0,
                "test_seconds": 1.0}

    monkeypatch.setattr(tune, "measured", measured)
    monkeypatch.setattr(tune, "ceiling", lambda *args: ceilings.append(1) or 0.9)
    return calls, ceilings


def test_a_scan_goes_on_where_it_was_stopped(file, tmp_path, monkeypatch):
    calls, ceilings = counted(monkeypatch)
    good = tune.measured

    def stops(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return good(*args)

    monkeypatch.setattr(tune, "measured", stops)
    asked = options(file, tmp_path, "learning_rate=1,3,10")
    with pytest.raises(KeyboardInterrupt):
        tune.fill(asked)
    assert [p["changes"]["learning_rate"] for p in kept(tmp_path)["points"]] == [1, 3]
    monkeypatch.setattr(tune, "measured", good)
    assert len(tune.fill(asked)) == 3 and len(calls) == 3
    tune.fill(options(file, tmp_path, "learning_rate=10,30"))
    assert len(calls) == 4 and len(kept(tmp_path)["points"]) == 4, "other points stay"
    assert not ceilings
    tune.fill(dataclasses.replace(asked, full=True))
    assert len(calls) == 4 and len(ceilings) == 3
    for change in (dict(share=0.2), dict(test_share=1.0), dict(networks=3), dict(seed=1)):
        before = len(calls)
        tune.fill(dataclasses.replace(asked, **change))
        assert len(calls) > before, "another share, seed or number of networks is another point"


def test_a_step_that_is_not_finite_is_a_point_too(file, tmp_path, monkeypatch, capsys):
    def fails(*args):
        raise NonFiniteError("step 3 of dm was not finite")

    monkeypatch.setattr(tune, "distilled_point", fails)
    tune.main(options(file, tmp_path, "learning_rate=1e30"))
    assert kept(tmp_path)["points"][0]["error"] == "step 3 of dm was not finite"
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize("change,message", [
    (dict(scan=("learning_rat=1",)), "learning_rate"), (dict(scan=("learning_rate=1,-1",)), "-1"),
    (dict(method="dmm"), "'dm'"), (dict(share=0.0), "share is"), (dict(networks=0), "networks is"),
], ids=["name", "value", "method", "share", "networks"])
def test_what_cannot_be_is_refused_before_anything_is_computed(file, tmp_path, monkeypatch, change,
                                                               message):
    monkeypatch.setattr(tune, "measured", None)
    with pytest.raises(ConfigError, match=message):
        tune.main(dataclasses.replace(options(file, tmp_path), **change))


def test_a_foreign_file_is_not_written_over(file, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "measured", None)
    place = tmp_path / "tuning" / "dm_ipc1.json"
    place.parent.mkdir()
    for text in ('{"points": [{}]}', '{"a": 1}', "[]", "{"):
        place.write_text(text)
        with pytest.raises(DataError, match="points of a scan"):
            tune.fill(options(file, tmp_path))
        assert place.read_text() == text
