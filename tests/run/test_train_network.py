"""A network's training that was stopped goes on to the same bits, also from the host."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from dd_jax import nets
from dd_jax.data import normalise, standardise
from dd_jax.errors import NonFiniteError, RunStopped
from dd_jax.run import networks
from dd_jax.run.networks import STATE, train_network
from dd_jax.store.arrays import read_card
from dd_jax.train import augmented
from tests.laws import members

NETWORK = nets.convnet(members.SPEC, depth=1, width=2, norm="batch")


def trained(folder, data=None, rate=0.05, **options):
    data = data or members.toy_data()
    optimizer = optax.sgd(optax.cosine_decay_schedule(rate, 16), momentum=0.9)
    return train_network(folder, NETWORK, data, normaliser=standardise(members.toy_data()),
                         key=jax.random.key(3), epochs=4, batch_size=16, optimizer=optimizer,
                         views=augmented(mix=0.5), show_progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    found = trained(folder)
    assert not list(folder.iterdir())  # it took less than a minute
    return found


def test_it_learns_and_keeps_running_statistics(whole, toy):
    images = normalise(standardise(toy), toy.images)
    logits = NETWORK.apply(whole, images).logits
    assert np.mean(np.argmax(logits, axis=1) == toy.labels) > 0.9
    start = NETWORK.init(jax.random.key(0))["batch_stats"]
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(start),
                                              jax.tree.leaves(whole["batch_stats"])))


def test_a_killed_training_goes_on_to_the_same_bits(whole, tmp_path, monkeypatch):
    kept, written = networks.write_arrays, []

    def killed(path, state, card):
        if card["epochs"] == 3:
            raise KeyboardInterrupt
        written.append(card["epochs"])
        return kept(path, state, card)

    monkeypatch.setattr(networks, "write_arrays", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, save_seconds=0.0)
    monkeypatch.undo()
    assert written == [1, 2] and read_card(tmp_path / STATE)["epochs"] == 2
    jax.tree.map(np.testing.assert_array_equal, trained(tmp_path), whole)


def test_a_signal_ends_it_after_an_epoch_that_is_kept(whole, tmp_path, monkeypatch):
    class Stop:
        requested = True

        def __init__(self, doing):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            pass

        def check(self, when):
            raise RunStopped(when)

    monkeypatch.setattr(networks, "StopSignals", Stop)
    with pytest.raises(RunStopped, match="after 1 of 4 epochs of convnet"):
        trained(tmp_path)
    monkeypatch.undo()
    assert read_card(tmp_path / STATE)["epochs"] == 1
    jax.tree.map(np.testing.assert_array_equal, trained(tmp_path), whole)


def test_images_on_the_host_give_the_same(whole, tmp_path, toy_on_host):
    for a, b in zip(jax.tree.leaves(trained(tmp_path, toy_on_host)), jax.tree.leaves(whole)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_network_that_diverges_is_told(tmp_path):
    with pytest.raises(NonFiniteError, match="convnet diverged in epoch . of 4"):
        trained(tmp_path, rate=1e30)
