"""Probes in a training set, and kinds of images by trajectories, against slow loops."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError, DataError
from dd_jax.select.archaeology import (
    Probed,
    archaeology,
    likeness,
    probe_accuracy,
    suite_shares,
)
from dd_jax.select.dynamics import Dynamics
from dd_jax.select.probes import NONE, SUITES, Probes, chosen_probes, planted, suite_size
from tests.select import reference_scores as slow

N, E, KEY = 80, 6, jax.random.key(0)
LABELS = np.arange(N) % 4
PIXELS = np.random.default_rng(1).integers(40, 200, (N, 5, 5, 1)).astype(np.uint8)
DATA = from_arrays(PIXELS, LABELS)


def first_run(seed=0):
    rng = np.random.default_rng(seed)
    found = {name: np.float32(rng.uniform(0.01, 2, (2, E, N))) for name in Dynamics._fields}
    found["correct"] = rng.uniform(size=(2, E, N)) < np.linspace(0.1, 0.9, N)
    return Dynamics(**found)


@pytest.mark.parametrize("suites", [4, 5])
def test_suites_are_of_their_size_and_their_kind(suites):
    seen, size = first_run(), 3
    found = chosen_probes(seen, size, suites, KEY)
    for number in range(suites):
        rows = found.suite == number
        assert rows.sum() == 2 * size and found.fitted[rows].sum() == size
    assert (found.suite == NONE).sum() == N - 2 * size * suites
    assert not found.fitted[found.suite == NONE].any()
    right = seen.correct.mean(axis=(0, 1))
    assert right[found.suite == 0].min() >= right[found.suite != 0].max()
    assert right[found.suite == 1].max() <= right[found.suite != 1].min()
    other = chosen_probes(seen, size, suites, jax.random.key(1))
    assert (other.suite != found.suite).any() and (other.fitted != found.fitted).any()
    np.testing.assert_array_equal(other.suite == 0, found.suite == 0)


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_only_probes_are_changed_and_as_their_suite_says(kind, on_host):
    top = 255 if kind == np.uint8 else 1
    data = from_arrays(PIXELS if top > 1 else np.float32(PIXELS / 255 + 1e-4), LABELS,
                       device=not on_host)
    probes = chosen_probes(first_run(), 3, 5, KEY)
    before = np.array(data.images)
    found = planted(data, probes, KEY, noise=0.1)
    np.testing.assert_array_equal(data.images, before)
    assert isinstance(found.images, np.ndarray) == on_host and found.images.dtype == kind
    moved = np.abs(np.float64(found.images) - before).reshape(N, -1).mean(axis=1) / top
    labels = np.asarray(found.labels)
    for number, name in enumerate(SUITES):
        rows = probes.suite == number
        assert (moved[rows] > 0).all() == (name in ("corrupted", "random_inputs"))
        if name == "corrupted":
            np.testing.assert_allclose(moved[rows].mean(), 0.1 * np.sqrt(2 / np.pi), rtol=0.2)
        if name == "random_outputs":
            assert (labels[rows] != LABELS[rows]).all()
        elif name != "random_inputs":
            assert (labels[rows] == LABELS[rows]).all()
    none = probes.suite == NONE
    assert (moved[none] == 0).all() and (labels[none] == LABELS[none]).all()
    np.testing.assert_array_equal(found.class_counts, np.bincount(labels, minlength=4))
    noise = np.asarray(found.images)[probes.suite == 4] / top
    assert noise.min() == 0 and noise.max() == 1 and (noise == 0).mean() > 0.3


def recorded(seed=0):
    """Trajectories of which suites are clouds, and images lie between them."""
    rng = np.random.default_rng(seed)
    probes = chosen_probes(first_run(), 5, 4, KEY)
    kinds = np.where(probes.suite == NONE, rng.integers(0, 4, N), probes.suite)
    centres = rng.normal(size=(4, E))
    return Probed(np.float32((centres[kinds] + 0.7 * rng.normal(size=(N, E))).T), probes), kinds


@pytest.mark.parametrize("count", [1, 4, 19])
def test_shares_equal_a_slow_reference(count):
    seen, _ = recorded()
    found = suite_shares(seen, count)
    wanted = [slow.suite_shares(i, seen.loss.T, seen.probes.suite, seen.probes.fitted, count)
              for i in range(N)]
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(suite_shares(seen, 500), suite_shares(seen, 19))


def test_accuracy_is_that_of_probes_that_were_not_fitted():
    seen, _ = recorded()
    shares, suite = suite_shares(seen, 5), seen.probes.suite
    held = (suite != NONE) & ~seen.probes.fitted
    found = probe_accuracy(seen, 5)
    assert set(found) == {*SUITES[:4], "all"}
    np.testing.assert_allclose(found["all"], (shares.argmax(axis=1) == suite)[held].mean())
    np.testing.assert_allclose(found["all"], np.mean([found[name] for name in SUITES[:4]]))
    far = seen._replace(loss=np.float32(100 * suite[None] + np.zeros((E, 1))))
    assert probe_accuracy(far, 4) == {**dict.fromkeys(SUITES[:4], 1.0), "all": 1.0}


@pytest.mark.parametrize("suite", SUITES[:4])
def test_order_is_by_shares_and_changed_images_are_last(suite):
    seen, _ = recorded()
    share = suite_shares(seen, 5)[:, SUITES.index(suite)]
    found = likeness(seen, suite, 5)
    assert all(found[a] > found[b] for a in range(N) for b in range(N) if share[a] > share[b])
    changed = np.isin(seen.probes.suite, [2, 3])
    for order, sign in (("top", 1), ("bottom", -1)):
        selector = archaeology(suite, order=order, neighbours=5)
        score = selector.score(DATA, {"probed": seen}, None)
        assert score[changed].max() < score[~changed].min()
        chosen = selector.choose(jnp.asarray(score), jnp.ones(N, bool), N - changed.sum(), KEY).rows
        assert (np.diff(sign * share[np.asarray(chosen)]) <= 1e-9).all()


def test_small_sets_have_fewer_probes_and_tiny_ones_none():
    assert suite_size(DATA, 250, 4) == 5 and suite_size(DATA, 3, 4) == 3
    tiny = from_arrays(PIXELS[:15], LABELS[:15])
    with pytest.raises(DataError, match="15 images, expected at least 16 for 4 suites"):
        suite_size(tiny, 250, 4)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="unknown suite 'typicle'.*'typical'"):
        archaeology("typicle")
    with pytest.raises(ConfigError, match="unknown order 'middle'"):
        archaeology(order="middle")
    with pytest.raises(ConfigError, match="neighbours is 0"):
        archaeology(neighbours=0)
    seen, _ = recorded()
    fewer = dataclasses.replace(DATA, labels=DATA.labels[:-1])
    with pytest.raises(ConfigError, match="expected 79 rows"):
        archaeology().score(fewer, {"probed": seen}, None)
    assert isinstance(seen.probes, Probes)
