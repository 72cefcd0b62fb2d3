"""A set that learned its rate is tested at that rate."""

from __future__ import annotations

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dd_jax as dd
from dd_jax.errors import ConfigError
from dd_jax.evaluate import protocol
from tests.laws import members

MODULE = importlib.import_module("dd_jax.evaluate.evaluate")
RATE = float(np.float32(0.07))
OWN = protocol("own", network="mlp", width=8, epochs=4, batch_size=2, learning_rate=0.5, seeds=2,
               learned_rate=True)


@pytest.fixture(scope="module")
def plain(toy):
    """Two images a class."""
    recipe = dd.methods.recipe("dm", toy, depth=1, width=2)
    return dd.distill.package(recipe, members.start(labels="one_hot"), toy)


def with_rate(distilled, rate):
    synthetic = distilled.synthetic._replace(learning_rate=np.asarray(rate, np.float32))
    return dataclasses.replace(distilled, synthetic=synthetic)


def accuracies(distilled, toy, protocol):
    return MODULE.evaluate(distilled, toy, protocol=protocol, key=jax.random.key(1)).accuracies


def test_its_networks_are_those_of_a_protocol_of_that_rate(plain, toy, monkeypatch):
    """To the last bit of their parameters."""
    train, ends = MODULE.train, []

    def watched(network, protocol, **options):
        variables = train(network, protocol, **options)
        jax.debug.callback(lambda head: ends.append(np.asarray(head)),
                           variables["params"]["head"]["kernel"])
        return variables

    monkeypatch.setattr(MODULE, "train", watched)
    ours = accuracies(with_rate(plain, RATE), toy, OWN)
    by_protocol = OWN.varied(learned_rate=False, learning_rate=RATE)
    theirs = accuracies(plain, toy, by_protocol)
    jax.effects_barrier()
    np.testing.assert_array_equal(ours, theirs)
    ends = np.stack(ends).reshape(2, -1)
    np.testing.assert_array_equal(*np.sort(ends, axis=1))
    assert np.unique(ends).size > 8


@pytest.mark.parametrize("rate,learned,found", [(None, True, 0.5), (RATE, False, 0.5),
                                                ([RATE], True, RATE)])
def test_whose_rate_counts(rate, learned, found, plain, toy, monkeypatch):
    seen = []

    def looked(keys, sets, *args, protocol, **options):
        seen.append(protocol.optimizer.learning_rate)
        return jnp.zeros(len(keys))

    monkeypatch.setattr(MODULE, "_train_and_test", looked)
    distilled = plain if rate is None else with_rate(plain, rate)
    accuracies(distilled, toy, OWN.varied(learned_rate=learned))
    assert seen == [found]


def test_a_rate_for_each_step_has_no_schedule_of_epochs(plain, toy):
    with pytest.raises(ConfigError, match="3 learning rates.*learned_rate=False"):
        accuracies(with_rate(plain, [0.1, 0.2, 0.3]), toy, OWN)


@pytest.mark.parametrize("rate", [-0.1, np.nan, np.inf])
def test_a_rate_that_cannot_be_is_refused(rate, plain, toy):
    with pytest.raises(ConfigError, match="learning_rate"):
        accuracies(with_rate(plain, rate), toy, OWN)


def test_the_rate_travels_with_the_set(plain, tmp_path):
    dd.store.save(tmp_path / "set.safetensors", with_rate(plain, RATE))
    loaded = dd.store.load(tmp_path / "set.safetensors").synthetic
    assert float(loaded.learning_rate) == RATE and loaded.learning_rate.shape == ()
