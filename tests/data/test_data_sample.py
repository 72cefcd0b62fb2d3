from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import data
from dd_jax.errors import ConfigError, DataError

LABELS = np.array([0] * 9 + [1] * 4 + [2] * 2)


def toy():
    order = np.random.default_rng(0).permutation(15)
    return data.from_arrays(np.zeros((15, 2, 2, 1), np.uint8), LABELS[order])


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def test_uniform_rows_are_distinct_and_an_epoch_is_a_permutation():
    real = toy()
    draw = jax.jit(data.rows_uniform, static_argnums=2)
    some = draw(real, jax.random.key(1), 7)
    assert some.dtype == jnp.int32 and len(set(some.tolist())) == 7
    assert sorted(draw(real, jax.random.key(1), 15).tolist()) == list(range(15))


def test_uniform_rows_are_uniform():
    real = toy()
    rows = np.asarray(jax.vmap(lambda k: data.rows_uniform(real, k, 3))(keys(5000)))
    for column in rows.T:  # every place of the draw, not only the set, is uniform
        counts = np.bincount(column, minlength=15)
        expected = 5000 / 15
        assert ((counts - expected) ** 2 / expected).sum() < 36.1  # chi-squared, 14 df, p = 0.001


@pytest.mark.parametrize("count", [16, 0, -1, 1.5, True])
def test_uniform_count_is_checked_at_trace_time(count):
    real = toy()
    with pytest.raises(ConfigError, match="count"):
        jax.jit(lambda k: data.rows_uniform(real, k, count))(jax.random.key(0))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 11, 20])
def test_per_class_counts_are_exact(count):
    real = toy()
    rows = jax.jit(data.rows_per_class, static_argnums=2)(real, jax.random.key(2), count)
    assert rows.shape == (3, count) and rows.dtype == jnp.int32
    labels = np.asarray(real.labels)
    for c, size in enumerate([9, 4, 2]):
        assert (labels[rows[c]] == c).all()
        used = np.bincount(np.asarray(rows[c]), minlength=15)[labels == c]
        assert used.min() >= count // size and used.max() <= -(-count // size)


def test_per_class_rows_are_uniform_in_each_class():
    real = toy()
    rows = np.asarray(jax.vmap(lambda k: data.rows_per_class(real, k, 3))(keys(4000)))
    for c, size in enumerate([9, 4, 2]):
        counts = np.bincount(rows[:, c].ravel(), minlength=15)[np.asarray(real.labels) == c]
        expected = 4000 * 3 / size
        assert np.abs(counts / expected - 1).max() < 0.08


def test_per_class_same_key_same_rows_and_index_is_enough():
    real = toy()
    key = jax.random.key(5)
    a, b = data.rows_per_class(real, key, 2), data.rows_per_class(data.as_index(real), key, 2)
    np.testing.assert_array_equal(a, b)
    assert (a != data.rows_per_class(real, jax.random.key(6), 2)).any()


def test_real_rows_are_distinct_and_class_major():
    real = toy()
    rows = data.real_rows(real, jax.random.key(0), 2)
    assert real.labels[rows].tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(rows.tolist())) == 6


def test_real_rows_above_the_class_size_name_the_class():
    with pytest.raises(DataError, match=r"class 2 \(2\) has 2 images, expected at least 5"):
        data.real_rows(toy(), jax.random.key(0), 5)
    with pytest.raises(ConfigError):
        data.real_rows(toy(), jax.random.key(0), 0)
