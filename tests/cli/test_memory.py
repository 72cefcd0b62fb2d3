"""The command line tells what a selection holds before it starts, and refuses what has no room."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax.cli import distill, prepare
from dd_jax.errors import ConfigError
from tests.laws import members


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder, toy = tmp_path_factory.mktemp("memory"), members.toy_data()
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    np.savez(folder / "toy.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    return ["herding", "--data", str(folder / "toy.npz"), "--width", "2", "--depth", "1",
            "--network-epochs", "1", "--workdir", str(folder / "run")]


def test_it_is_told_before_it_starts(words, capsys):
    assert distill.run([*words, "--no-evaluate", "--memory", "1GB"]) == 0
    told = capsys.readouterr().err
    assert "memory: look " in told and "choice " in told and "on the host" in told
    assert prepare.run(words) == 0
    assert "memory: look " in capsys.readouterr().err


@pytest.mark.parametrize("memory,said", [("100", "memory is 100 B, and the "), ("much", "'much'")])
def test_a_bound_that_cannot_be_is_refused(words, memory, said):
    with pytest.raises(ConfigError, match=said):
        distill.run([*words, "--memory", memory])
