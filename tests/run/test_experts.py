"""A folder of experts ends in the same bytes however often its training was ended."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from dd_jax import data as dd_data
from dd_jax import nets
from dd_jax.errors import CheckpointError, ConfigError, RunStopped
from dd_jax.run import experts as filling
from dd_jax.run.experts import train_experts
from dd_jax.train.expert_rules import sharpness_aware
from dd_jax.train.experts import train_expert
from tests.laws import members

# The process ends while the second expert has its bytes on the disk, but not yet its name.
KILLED = """
import os, signal, sys
replace, seen = os.replace, []
def until_the_second(source, target):
    if "expert_" in str(target):
        seen.append(target)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target)
os.replace = until_the_second
from tests.run.test_experts import train
train(sys.argv[1])
"""


def train(folder, **changes):
    toy = changes.pop("data", None) or members.toy_data()
    network = nets.mlp(members.SPEC, width=changes.pop("width", 4), depth=2)
    settings = {"count": 3, "epochs": 2, "batch_size": 32, "rule": sharpness_aware(),
                "normaliser": dd_data.standardise(toy), "key": jax.random.key(5), **changes}
    return train_experts(folder, network, toy, **settings)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    experts = train(folder)
    assert (experts.experts, experts.epochs) == ((0, 1, 2), 2)
    return folder


def test_a_killed_training_goes_on_to_the_same_bytes(whole, tmp_path):
    root = pathlib.Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=env, timeout=120,
                            capture_output=True, cwd=root)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert "expert_00000.safetensors" in names and "expert_00001.safetensors" not in names
    assert any(name.startswith(".expert_00001") for name in names)
    train(tmp_path)
    assert contents(tmp_path) == contents(whole)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_a_signal_stops_between_experts(tmp_path, monkeypatch):
    write = filling.write_expert

    def and_be_asked_to_stop(*args, **options):
        write(*args, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(filling, "write_expert", and_be_asked_to_stop)
    with pytest.raises(RunStopped, match="SIGTERM after 1 of 3 experts.*again to continue"):
        train(tmp_path)
    assert sorted(contents(tmp_path)) == ["expert_00000.safetensors"]


def test_a_signal_stops_between_epochs(tmp_path, monkeypatch):
    class Asks:
        def update(self, step, **metrics):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(filling, "progress", lambda *_, **__: contextlib.nullcontext(Asks()))
    with pytest.raises(RunStopped, match="after 0 of 3 experts.*had 1 of 2 epochs and begins anew"):
        train(tmp_path)
    assert not contents(tmp_path)


def test_epoch_by_epoch_gives_the_bits_of_all_at_once_and_is_told(toy, tmp_path, capsys):
    settings = dict(epochs=3, batch_size=24, learning_rate=(0.1, 0.2, 0.1), momentum=0.9, restart=1,
                    weight_decay=0.01, rule=sharpness_aware(),
                    normaliser=dd_data.standardise(toy))
    found = train(tmp_path, count=2, **settings)
    assert "2 experts: epoch 6/6, " in capsys.readouterr().err
    network = nets.mlp(members.SPEC, width=4, depth=2)
    wanted = [train_expert(network, toy, key=jax.random.fold_in(jax.random.key(5), i), **settings)
              for i in range(2)]
    np.testing.assert_array_equal(found.read(np.arange(2)[:, None], np.arange(4)), wanted)


def test_several_at_once_equal_one_by_one(whole, tmp_path):
    """Two programs of two, of which the last has only one expert left."""
    found, wanted = (folder.read(np.arange(3)[:, None], np.arange(3))
                     for folder in (train(tmp_path, together=2), train(whole)))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_what_is_there_is_not_trained_again(whole, monkeypatch):
    monkeypatch.setattr(filling, "write_expert", None)
    assert train(whole, count=2).experts == (0, 1, 2)


# Functions, because no device is touched while tests are collected.
@pytest.mark.parametrize("changes, piece", [
    (lambda: dict(rule=sharpness_aware(a=1.0)), "training.rule.a is 0.3 there, 1.0 now"),
    (lambda: dict(rule=None), "'rho': 0.01} there, None now"),
    (lambda: dict(key=jax.random.key(6)), "training.key is [0, 5] there, [0, 6] now"),
    (lambda: dict(epochs=3), "training.epochs is 2 there, 3 now"),
    (lambda: dict(width=5), "parameters is [['head/bias'"),
    (lambda: dict(dtype="bfloat16"), "dtype is 'float32' there, 'bfloat16' now"),
    (lambda: dict(notes={"flip": True}), "training.notes.flip is (absent) there, True now"),
    (lambda: dict(normaliser=dd_data.identity(members.SHAPE)),
     "normaliser.kind is 'standardise' there, 'none' now"),
], ids=["a", "rule", "key", "epochs", "width", "dtype", "notes", "normaliser"])
def test_experts_of_another_kind_are_refused(whole, changes, piece):
    with pytest.raises(CheckpointError) as caught:
        train(whole, **changes())
    assert "an expert of another kind" in str(caught.value) and piece in str(caught.value)


def test_a_truncated_expert_is_named(whole, tmp_path):
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content[:-9] if name == "expert_00001.safetensors"
                                      else content)
    with pytest.raises(CheckpointError, match="expert_00001.safetensors .*truncated.*delete"):
        train(tmp_path)


@pytest.mark.parametrize("changes, piece", [
    (dict(count=0), "count is 0"),
    (dict(together=0), "together is 0"),
    (dict(dtype="float16"), "unknown dtype 'float16'"),
    (dict(epoch=3), "did you mean 'epochs'"),
    (dict(momentum=-1.0), "momentum is -1.0"),
    (dict(key=0.5), "key is 0.5, expected an integer seed or one typed PRNG key"),
])
def test_wrong_settings_leave_no_folder(tmp_path, changes, piece):
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "new", **changes)
    assert piece in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_epochs_must_be_given(toy, tmp_path):
    with pytest.raises(ConfigError, match="epochs is missing"):
        train_experts(tmp_path, nets.mlp(members.SPEC, width=4, depth=2), toy, count=1,
                      normaliser=dd_data.standardise(toy), key=jax.random.key(0))
