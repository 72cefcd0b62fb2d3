"""Neighbours block by block, and contrastive images, against slow loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError
from dd_jax.select import contrastive, neighbours
from dd_jax.select.contrastive import cal, divergence
from dd_jax.select.neighbours import nearest
from tests.select import reference_scores as slow

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 1, 2], [1, 6, 30]))
N = len(LABELS)
DATA = from_arrays(np.zeros((N, 1, 1), np.uint8), LABELS)
HAVE = {"features": np.float32(RNG.normal(size=(N, 4)) + 20),
        "logits": np.float32(3 * RNG.normal(size=(N, 5)))}


@pytest.mark.parametrize("block", [None, 1, 7, N])
def test_neighbours_are_those_of_all_distances_whatever_the_block(block):
    points = HAVE["features"]
    found = nearest(points, points, 6, own=np.arange(N), block=block)
    assert found.dtype == np.int32
    assert found.tolist() == [slow.nearest(points[i], points, 6, without=i) for i in range(N)]
    others = np.float32(RNG.normal(size=(9, 4)) + 20)
    wanted = [slow.nearest(other, points, N) for other in others]
    assert nearest(others, points, N, block=block).tolist() == wanted


def test_twins_are_neighbours_and_an_image_is_never_its_own():
    points = np.zeros((5, 2), np.float32)
    found = nearest(points, points, 4, own=np.arange(5))
    assert all(sorted([*row, i]) == list(range(5)) for i, row in enumerate(found.tolist()))
    with pytest.raises(ConfigError, match="neighbours is 5, and a point has 4"):
        nearest(points, points, 5, own=np.arange(5))
    with pytest.raises(ConfigError, match="neighbours is 0"):
        nearest(points, points, 0)


def test_no_array_of_all_pairs_is_formed(monkeypatch):
    """Blocks are of so many points that their distances are bounded."""
    seen, whole = [], neighbours._nearest
    monkeypatch.setattr(neighbours, "_MOST_NUMBERS", 2**12)
    monkeypatch.setattr(neighbours, "_nearest", lambda points, own, among, size, count: (
        seen.append(len(points) * len(among)), whole(points, own, among, size, count))[1])
    points = np.float32(RNG.normal(size=(300, 2)))
    found = nearest(points, points, 3, own=np.arange(300))
    assert max(seen) <= 2**12 and found.shape == (300, 3)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("among", ["class", "set"])
def test_contrast_equals_a_slow_reference(among, symmetric, monkeypatch):
    monkeypatch.setattr(contrastive, "_MOST_NUMBERS", 100)  # several blocks
    selector = cal(4, among=among, towards="symmetric" if symmetric else "neighbour")
    found = selector.score(DATA, HAVE, None)
    assert found.dtype == np.float32
    for i in range(N):
        rows = range(N) if among == "set" else np.flatnonzero(LABELS == LABELS[i])
        wanted = 0 if len(rows) == 1 else slow.contrast(
            i, HAVE["features"], HAVE["logits"], min(4, len(rows) - 1), rows, symmetric=symmetric)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-5, atol=1e-7)


def test_equal_probabilities_have_no_contrast_and_sure_ones_a_finite_one():
    near = np.array([[1], [0]])
    assert divergence(np.array([[1.0, 2], [11, 12]]), near).tolist() == [0, 0]
    sure = divergence(np.float32([[500, 0], [0, 500]]), near, symmetric=True)
    np.testing.assert_allclose(sure, 500)


def test_the_image_beside_others_of_which_more_is_said_is_first():
    points = np.float32(np.arange(8))[:, None]
    logits = np.zeros((8, 2), np.float32)
    logits[5, 0] = 9
    data = from_arrays(np.zeros((8, 1, 1), np.uint8), [0] * 8, num_classes=1)
    selector = cal(2)
    score = selector.score(data, {"features": points, "logits": logits}, None)
    chosen = selector.choose(jnp.asarray(score), jnp.ones(8, bool), 1, jax.random.key(0))
    assert chosen.rows.tolist() == [5] and set(np.flatnonzero(score)) == {4, 5, 6, 7}


@pytest.mark.parametrize("changes,told", [
    (dict(neighbours=0), "neighbours is 0"), (dict(among="klass"), "'klass'.*'class'"),
    (dict(towards="both"), "'both'"), (dict(order="topp"), "'topp'")], ids=str)
def test_settings_that_cannot_be(changes, told):
    with pytest.raises(ConfigError, match=told):
        cal(**changes)
