"""The protocol and the recipe of somebody's set are checked as a user's own are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dd_jax import evaluate
from dd_jax.data import identity
from dd_jax.errors import CheckpointError, ConfigError, SetFileError
from dd_jax.evaluate import Protocol, ReadOut, baselines, protocol
from dd_jax.evaluate.optimizers import check_steps, rate_schedule
from dd_jax.evaluate.protocol import _PLACES
from dd_jax.evaluate.ranges import COUNTER
from dd_jax.evaluate.settings import OptimizerSettings
from dd_jax.store import DistilledSet
from dd_jax.store.atomic import write_atomically
from dd_jax.store.envelope import sealed
from dd_jax.types import SyntheticSet
from tests.store.tiny_sets import tiny

PLAIN = protocol("x", network="mlp", width=4, depth=1, read_out=ReadOut("fc1")).plain()
# Place -> what nobody's protocol has there; JSON gives any of these.
ODD = {
    "momentum": ["x", -0.5, 1.5, None, True, [0.5]],
    "weight_decay": [None, "x", -1e-4, 10**400, 1e30],
    "warmup": ["x", -1, 10**19, 2.5, None, False],
    "final_fraction": [[1], 2.0, -0.1, "0.1"],
    "learning_rate": ["x", None, [], {}, [0.1, "x"], [-0.1], 1e30, [[0.1]]],
    "learned_rate": [1, "true", None],
    "pull": ["0", 1e300],
    "schedule": [5, None, "x" * 10**6, []],
    "optimizer": [5, {}, "sdg"],
    "network": [5, [], "m" * 300],
    "width": [0, "4", 2.0, 10**9, True], "depth": [0, 10**6, None], "norm": [3, {}],
    "init_style": [5, "xavier", None], "first_padding": ["1", -1, 10**6],
    "epochs": [0, 10**30, 1.5, "1"], "batch_size": [0, 10**19], "order": [0, {}],
    "augmentation": [1, "x"], "cutmix": ["x", 2, None],
    "loss": [None, 3], "centre_outputs": [[], 0, "no"],
    "output_scale": [10**400, 0, -1, 1e-45, "1", None],
    "full_epochs": [0, 10**20], "name": [{}, 3, None, "x" * 10**4],
    "seeds": [0, "5", 10**10], "start_seed": [2**64, -1, "0", 0.5],
}


def place(values, name, value):
    """The nested values of a file with one of them changed, by its flat name."""
    values = json.loads(json.dumps(values))
    group, field = _PLACES[name]
    (values if group is None else values[group])[field] = value
    return values


@pytest.mark.parametrize("name", ODD)
def test_a_value_that_no_protocol_has_is_refused_and_named(name):
    for value in ODD[name]:
        if name == "learning_rate" and value == []:
            continue  # no rates are refused where the steps are counted
        with pytest.raises((ConfigError, SetFileError)) as caught:
            Protocol.from_plain(place(PLAIN, name, value))
        assert len(str(caught.value)) < 1200
        with pytest.raises(ConfigError):  # a user's own
            protocol(**{"name": "x", name: value})


@pytest.mark.parametrize("name", sorted(set(_PLACES) - {"read_out"}))
def test_no_field_holds_what_is_no_plain_value(name):
    with pytest.raises(ConfigError, match="expected"):
        protocol(**{"name": "x", name: object()})


@pytest.mark.parametrize("read_out", [
    5, [], {"kernel": 5}, {"kernel": "fc1", "ridge": "x"}, {"kernel": "fc1", "ridge": -1},
    {"kernel": "fc1", "mode": 3}, {"kernel": {}}, {"kernel": "fc1", "kind": []}, {}])
def test_a_read_out_that_cannot_be_is_refused(read_out):
    with pytest.raises((ConfigError, SetFileError)):
        Protocol.from_plain({**PLAIN, "read_out": read_out})
    with pytest.raises((ConfigError, SetFileError)):
        evaluate.own_read_out(tiny(evaluation={"read_out": read_out}))


def test_numbers_of_other_libraries_are_numbers():
    made = protocol("x", epochs=np.int64(3), learning_rate=np.float32(0.5), momentum=0, cutmix=1,
                    learned_rate=np.bool_(True), first_padding=None)
    assert made.plan.epochs == 3 and made.optimizer.momentum == 0


@pytest.mark.parametrize("stages", ["x", 0, -1, None, [], 1.0, True, 10**39, {}])
def test_the_stages_of_a_foreign_recipe(stages, toy):
    made = tiny(recipe={"stages": stages})
    by = protocol("x", network="mlp", width=4)
    for test in (evaluate.check, evaluate.evaluate_progressive):
        key = {} if test is evaluate.check else {"key": 0}
        with pytest.raises(SetFileError):
            test(made, toy, protocol=by, **key)
    if stages != 10**39:
        with pytest.raises(SetFileError, match="notes the stages"):
            evaluate.check(made, toy, protocol=by)
    with pytest.raises(ConfigError, match="stages is 0"):
        evaluate.check(made, toy, protocol=by, stages=0)


def test_more_steps_than_can_be_counted_are_refused(toy):
    with pytest.raises(ConfigError, match="steps, expected at most"):
        check_steps(COUNTER + 1)
    images, labels = np.zeros((4, *toy.spec.shape), np.float32), np.eye(2, dtype=np.float32)
    made = DistilledSet(SyntheticSet(images, np.tile(labels, (2, 1))), identity(toy.spec.shape),
                        "one_hot", toy.spec)
    by = protocol("x", network="mlp", width=4, epochs=COUNTER, batch_size=1)
    evaluate.check(made, toy, protocol=by.varied(batch_size=4))
    with pytest.raises(ConfigError, match="expected at most"):
        evaluate.check(made, toy, protocol=by)
    settings = OptimizerSettings(schedule="warmup_cosine", warmup=COUNTER)
    with pytest.raises(ConfigError, match="expected at most"):
        rate_schedule(settings, COUNTER, 2)
    assert float(rate_schedule(settings, 10, 2)(3)) >= 0


@pytest.mark.parametrize("change", [
    {"accuracies": []}, {"accuracies": [[0.5]]}, {"accuracies": [1.5]}, {"accuracies": [-0.1]},
    {"accuracies": "x"}, {"accuracies": [None]}, {"accuracies": 0.5}, {"accuracies": [[1], 2]},
    {"seconds": -1.0}, {"seconds": 1e300}, {"seconds": "x"}, {"seconds": None}, {"seconds": []}])
def test_a_baseline_is_not_believed_whatever_it_says(tmp_path, change):
    """Its hash is right here: a liar can compute it, too."""
    def write(values):
        write_atomically(tmp_path / baselines._FILE, lambda file: file.write(sealed(values)))

    good = {"accuracies": [0.5, 0.75], "seconds": 3.0}
    write(good)
    assert baselines._open(tmp_path).mean == 0.625
    write({**good, **change})
    with pytest.raises(CheckpointError, match="--remove"):
        baselines._open(tmp_path)
