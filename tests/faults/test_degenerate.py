"""Data at the edge, one or two methods a kind; `tests.faults.degenerate` has all of them."""

from __future__ import annotations

import pytest

from dd_jax.errors import ConfigError
from dd_jax.methods import METHODS
from tests.faults.degenerate import KINDS, data_of, outcome
from tests.methods import tiny

MATCHED_BY_ITSELF = {"datadam", "dm", "krr_st", "m3d", "ncfm", "random"}
CASES = [
    ("dm", "one class"), ("dm", "a hundred classes"), ("herding", "unequal classes"),
    ("dm", "constant images"), ("kip", "all zeros"), ("kip", "duplicates"),
    ("dm", "one image a class"), ("dm", "4x4"),
    ("dm", "27x32x3"), ("frepo", "float64"), ("kip", "faint images"),
]


def test_the_table_has_every_kind():
    assert {kind for _, kind in CASES} | {"two classes"} == set(KINDS)


@pytest.mark.parametrize("method,kind", CASES, ids=lambda x: x)
def test_one_step_is_finite(method, kind):
    assert outcome(method, kind) == "finite"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_class_is_refused_unless_classes_are_matched_by_themselves(method):
    """Before anything is made or compiled."""
    data = data_of(KINDS["one class"])
    if method in MATCHED_BY_ITSELF:
        tiny.plan(method, data)
    else:
        with pytest.raises(ConfigError, match=f"1 class, expected at least 2: {method}"):
            tiny.plan(method, data)
