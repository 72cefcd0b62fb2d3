"""How many images each class chooses."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError, DataError, NonFiniteError
from dd_jax.select import Budget, counts_of, select
from dd_jax.select.selector import _size
from dd_jax.select.selectors import herding, random

SIZES = (1, 4, 10, 25)


def data_of(sizes):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels, num_classes=len(sizes),
                       allow_missing=True)


@pytest.mark.parametrize("budget,wanted", [
    (Budget(per_class=1), [1, 1, 1, 1]),
    (Budget(per_class=6, short="fewer"), [1, 4, 6, 6]),
    (Budget(per_class=6, short="others"), [1, 4, 10, 9]),
    (Budget(per_class=10, short="others"), [1, 4, 10, 25]),
    (Budget(total=6, short="others"), [1, 1, 2, 2]),
    (Budget(total=1), [0, 0, 0, 1]),
    (Budget(share=0.5, short="refuse"), [1, 2, 5, 12]),
    (Budget(share=1.0), list(SIZES)),
    (Budget(share=0.001), [0, 0, 0, 1]),
    (Budget(total=40, within="set"), [40]),
    (Budget(per_class=2, within="set"), [8]),
    (Budget(share=0.1, within="set"), [4]),
], ids=str)
def test_counts(budget, wanted):
    data = data_of(SIZES)
    assert counts_of(budget, data).tolist() == wanted
    chosen = select(random(), data, {}, budget, key=jax.random.key(0))
    assert len(chosen.rows) == len(set(chosen.rows.tolist())) == sum(wanted)
    if budget.within == "class":
        held = np.asarray(data.labels)[chosen.rows]
        assert np.bincount(held, minlength=4).tolist() == wanted and (np.diff(held) >= 0).all()


@pytest.mark.parametrize("budget,error,told", [
    (Budget(per_class=2), DataError, "class 0 .0. has 1 images, expected at least 2"),
    (Budget(per_class=11, short="others"), DataError, "40 images, and 44 are asked"),
    (Budget(total=41, within="set"), DataError, "40 images, and 41 are asked"),
    (Budget(share=0.0), ConfigError, "share is 0.0.*above 0 and at most 1"),
    (Budget(share=1.01), ConfigError, "share is 1.01"),
    (Budget(share=float("nan")), ConfigError, "share is nan"),
    (Budget(per_class=0), ConfigError, "per_class is 0"),
    (Budget(total=True), ConfigError, "total is True"),
    (Budget(), ConfigError, "no amount"),
    (Budget(per_class=1, share=0.1), ConfigError, "per_class and share"),
    (Budget(per_class=1, within="klass"), ConfigError, "'klass'.*'class'"),
    (Budget(per_class=1, short="refused"), ConfigError, "'refused'.*'refuse'"),
], ids=str)
def test_budgets_that_cannot_be(budget, error, told):
    def never(*args):
        raise AssertionError("looked")

    with pytest.raises(error, match=told):
        select(random()._replace(score=never), data_of(SIZES), {}, budget, key=jax.random.key(0))


def test_an_empty_class_gives_nothing_only_where_that_was_asked_for():
    data = data_of((3, 0, 2))
    with pytest.raises(DataError, match="class 1 .1. has 0 images"):
        counts_of(Budget(per_class=1), data)
    assert counts_of(Budget(per_class=1, short="fewer"), data).tolist() == [1, 0, 1]
    assert counts_of(Budget(per_class=1, short="others"), data).tolist() == [2, 0, 1]
    chosen = select(random(), data, {}, Budget(per_class=2, short="fewer"), key=jax.random.key(0))
    assert np.bincount(np.asarray(data.labels)[chosen.rows], minlength=3).tolist() == [2, 0, 2]


def test_what_is_known_has_to_be_there_finite_and_of_this_data():
    data, key = data_of(SIZES), jax.random.key(0)
    with pytest.raises(ConfigError, match="needs features.*'features'"):
        select(herding(), data, {}, Budget(per_class=1), key=key)
    with pytest.raises(ConfigError, match="39, 2.*expected 40 rows"):
        select(herding(), data, {"features": np.zeros((39, 2))}, Budget(per_class=1), key=key)
    points = np.zeros((40, 2), np.float32)
    points[7, 1] = np.inf
    with pytest.raises(NonFiniteError, match="1 of 40 images.*row 7"):
        select(herding(), data, {"features": points}, Budget(per_class=1), key=key)


def test_groups_of_many_sizes_share_few_programs():
    sizes = [_size(n) for n in range(1, 1001)]
    assert all(n <= size <= max(n + 1, 1.5 * n) for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) == 20
