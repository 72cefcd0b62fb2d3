"""A recording that was stopped goes on to the same bits, on the device as from the host."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.data import standardise
from dd_jax.errors import NonFiniteError, RunStopped
from dd_jax.run import dynamics
from dd_jax.run.dynamics import epoch_file, open_dynamics, record_dynamics
from dd_jax.select import looks
from dd_jax.select.dynamics import Recording
from tests.laws import members

SIZES = dict(networks=2, epochs=3)


def record(folder, data=None, rate=0.05, **sizes):
    data = data or members.toy_data()
    recording = Recording(nets.convnet(members.SPEC, depth=1, width=2),
                          optax.sgd(optax.cosine_decay_schedule(rate, 12), momentum=0.9), 16)
    record_dynamics(folder, recording, data, **{**SIZES, **sizes}, key=jax.random.key(3),
                    normaliser=standardise(members.toy_data()), show_progress=False)
    return open_dynamics(folder, **{**SIZES, **sizes}, images=len(data.labels))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return record(tmp_path_factory.mktemp("whole"))


def test_what_is_recorded(whole):
    assert whole.loss.shape == (2, 3, 64) and whole.correct.dtype == bool
    assert whole.loss[:, -1].mean() < whole.loss[:, 0].mean()
    assert (whole.loss[0] != whole.loss[1]).any()
    np.testing.assert_array_equal(whole.correct, np.abs(np.exp(-whole.loss) - whole.largest) < 1e-6)


def test_a_stopped_recording_goes_on_to_the_same_bits(whole, tmp_path, monkeypatch):
    kept = dynamics.write_arrays

    def killed(path, *args):
        if path.name == epoch_file(1):
            raise RunStopped("here")
        return kept(path, *args)

    monkeypatch.setattr(dynamics, "write_arrays", killed)
    with pytest.raises(RunStopped):
        record(tmp_path)
    monkeypatch.undo()
    first = (tmp_path / epoch_file(0)).stat().st_mtime_ns
    jax.tree.map(np.testing.assert_array_equal, record(tmp_path), whole)
    assert (tmp_path / epoch_file(0)).stat().st_mtime_ns == first


def test_images_on_the_host_are_the_same_and_looked_at_in_blocks(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(looks, "block_rows", lambda data: 24)
    toy = members.toy_data()
    host = dataclasses.replace(toy, images=np.asarray(toy.images))
    for name, found, wanted in zip(whole._fields, record(tmp_path, host), whole):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_network_that_diverges_is_named_and_nothing_of_it_kept(tmp_path):
    with pytest.raises(NonFiniteError, match="diverged in epoch"):
        record(tmp_path, rate=1e30)
    assert not (tmp_path / epoch_file(2)).exists()
