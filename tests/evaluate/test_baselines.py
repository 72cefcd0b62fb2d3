"""Baselines as artefacts: made once, shared by whoever trains alike, and damage is named."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dd_jax.data import from_arrays, identity, split_of, standardise
from dd_jax.errors import CheckpointError
from dd_jax.evaluate import Evaluation, ReadOut, baselines, protocol
from dd_jax.evaluate.baselines import full_baseline, random_baseline
from dd_jax.store.artefacts import ArtefactStore
from dd_jax.synthetic import Labels

DC = protocol("dc", network="mlp", width=4, epochs=2)


@pytest.fixture
def data(toy):
    return split_of(toy, toy)


@pytest.fixture
def calls(monkeypatch):
    """What was trained, without training it."""
    found = []

    def trained(data, **options):
        found.append(options)
        return Evaluation(np.array([0.5, 0.75]), 0.625, 0.125, 3.0)

    monkeypatch.setattr(baselines, "evaluate_random", trained)
    monkeypatch.setattr(baselines, "evaluate_full", trained)
    return found


def random_of(data, **changes):
    usual = dict(protocol=DC, normaliser=standardise(data.train), labels=Labels(), ipc=2, seed=1)
    return random_baseline(data, **{**usual, **changes})


def full_of(data, **changes):
    usual = dict(protocol=DC, normaliser=standardise(data.train), labels=Labels(), seed=1)
    return full_baseline(data, **{**usual, **changes})


@pytest.mark.parametrize("of", [random_of, full_of])
def test_made_once_and_opened_as_an_evaluation(of, data, calls, tmp_path):
    first = ArtefactStore(tmp_path).get(of(data), data.train)
    store = ArtefactStore(tmp_path)
    again = store.get(of(data), data.train)
    assert len(calls) == 1 and [how for _, how, _ in store.report] == ["reused"]
    for found in (first, again):
        assert found.accuracies.tolist() == [0.5, 0.75]
        assert (found.mean, found.std, found.seconds) == (0.625, 0.125, 3.0)
    assert calls[0]["protocol"] == DC and "ipc" not in calls[0] or calls[0]["ipc"] == 2


@pytest.mark.parametrize("of,alike", [
    (random_of, DC.varied(full_epochs=3, full_batch_size=5, seeds=5)),
    (full_of, DC.varied(epochs=9, batch_size=7, start_seed=3, seeds=2)),
])
def test_methods_that_train_alike_share_it(of, alike, data):
    alike = alike.varied(name="another", read_out=ReadOut("fc1"))
    address = of(data).address(data.train)
    assert of(data, protocol=alike).address(data.train) == address
    darker = from_arrays(np.asarray(data.test.images) // 2, data.test.labels, num_classes=2)
    others = [{"protocol": DC.varied(width=8)}, {"protocol": DC.varied(augmentation="dsa")},
              {"normaliser": identity(data.train.spec.shape)}, {"labels": Labels("centred")},
              {"labels": Labels("centred", 2.0)}, {"seed": 2}, {"seeds": 3}]
    if of is random_of:
        others += [{"protocol": DC.varied(epochs=3)}, {"ipc": 3}, {"ipc": (2, 1)}, {"shown": 9}]
    else:
        others += [{"protocol": DC.varied(full_epochs=3)}]
    addresses = {of(data, **change).address(data.train) for change in others}
    addresses.add(of(data._replace(test=darker)).address(data.train))
    assert len(addresses | {address}) == len(others) + 2


@pytest.mark.parametrize("change", ["digit", "short", "gone", "text"])
def test_a_damaged_file_is_named_and_made_again_only_when_asked(change, data, calls, tmp_path):
    store = ArtefactStore(tmp_path)
    store.get(random_of(data), data.train)
    name, = (entry.name for entry in store.entries())
    file = tmp_path / name / "accuracies.json"
    text = file.read_text()
    if change == "gone":
        file.unlink()
    else:
        file.write_text({"digit": text.replace("0.75", "0.76"), "short": text[:-9],
                         "text": "x" * len(text)}[change])
    with pytest.raises(CheckpointError, match=f"(?s){name}.*accuracies.json.*--remove {name}"):
        store.get(random_of(data), data.train)
    assert len(calls) == 1
    store.remove(name)
    assert store.get(random_of(data), data.train).mean == 0.625 and len(calls) == 2


def test_networks_are_really_trained(data, tmp_path):
    store = ArtefactStore(tmp_path)
    random = store.get(random_of(data, seeds=2, ipc=(2, 1)), data.train)
    full = store.get(full_of(data, protocol=DC.varied(full_epochs=2)), data.train)
    assert len(random.accuracies) == 2 and len(full.accuracies) == 1
    kept = json.loads(next(tmp_path.glob("full_accuracy-*/accuracies.json")).read_text())
    assert kept["accuracies"] == full.accuracies.tolist()
