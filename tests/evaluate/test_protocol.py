"""Protocols as records: flat names, files of this and of older versions, and what is refused."""

from __future__ import annotations

import json

import pytest

from dd_jax.errors import ConfigError, SetFileError
from dd_jax.evaluate import Protocol, ReadOut, protocol

OLD = {"name": "dc", "network": "mlp", "learning_rate": [0.1, 0.2], "full_epochs": 3,
       "read_out": {"kernel": "fc1", "ridge": 0.5}}
NOW = protocol("dc", network="mlp", learning_rate=(0.1, 0.2), full_epochs=3,
               read_out=ReadOut("fc1", ridge=0.5))


def test_flat_names_find_their_places():
    assert (NOW.network.name, NOW.full.epochs, NOW.plan.epochs) == ("mlp", 3, 1001)
    assert NOW.varied(epochs=2, start_seed=4) == protocol(
        "dc", network="mlp", learning_rate=(0.1, 0.2), full_epochs=3, epochs=2, start_seed=4,
        read_out=ReadOut("fc1", ridge=0.5))
    # Two values that fit each other alone are changed at once.
    assert protocol("dd").varied(order="stored", schedule="constant").plan.order == "stored"
    assert len({NOW, NOW.varied(), NOW.varied(pull=0.1)}) == 2  # as static arguments of programs
    with pytest.raises(ConfigError, match="'depht'.*'depth'"):
        NOW.varied(depht=3)


def test_files_of_this_and_of_older_versions_are_read():
    assert Protocol.from_plain(OLD) == NOW
    assert Protocol.from_plain(json.loads(json.dumps(NOW.plain()))) == NOW
    assert "read_out" not in protocol("dc").plain()


@pytest.mark.parametrize("wrong", [
    {**OLD, "depht": 3}, {"network": "mlp"}, {**OLD, "plan": {"epoch": 3}},
    {**OLD, "plan": {"width": 3}}, {**OLD, "read_out": {"kernels": "fc1"}}, [1]])
def test_what_is_no_protocol_is_refused(wrong):
    with pytest.raises(SetFileError, match="protocol is not readable"):
        Protocol.from_plain(wrong)


@pytest.mark.parametrize("nothing", [{}, None])
def test_a_set_without_a_protocol_is_told(nothing):
    with pytest.raises(SetFileError, match="without an evaluation protocol.*evaluation=protocol"):
        Protocol.from_plain(nothing)
