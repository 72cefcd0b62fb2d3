"""K-means against a slow NumPy Lloyd, and its promises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers import k_means, nearest_rows


def lloyd(points, centres, iterations):
    """Lloyd's algorithm with loops, in float64."""
    centres = np.array(centres, np.float64)

    def assign():
        return np.array([np.argmin([np.sum((p - c) ** 2) for c in centres]) for p in points])

    for _ in range(iterations):
        nearest = assign()
        for j in range(len(centres)):
            if np.any(nearest == j):
                centres[j] = points[nearest == j].mean(axis=0)
    nearest = assign()
    return centres, nearest, sum(np.sum((p - centres[a]) ** 2) for p, a in zip(points, nearest))


def test_equals_a_slow_lloyd_and_never_sees_padding():
    rng = np.random.default_rng(0)
    # A mean far from 0 spoils distances that are not taken about a common middle.
    points = np.float32(rng.normal(size=(60, 5)) + 300)
    valid = rng.permutation(60) < 45
    padded = np.where(valid[:, None], points, rng.choice([np.nan, np.inf, 1e30], (60, 5)))
    inertias = []
    for iterations in (0, 1, 2, 5, 9):
        found = jax.jit(k_means, static_argnums=1, static_argnames="iterations")(
            jnp.float32(padded), 7, key=jax.random.key(2), valid=jnp.asarray(valid),
            iterations=iterations)
        if not inertias:
            start = np.asarray(found.centres)
            rows = [np.flatnonzero((points == c).all(1)) for c in start]
            assert all(len(r) == 1 and valid[r[0]] for r in rows)
            assert len({int(r[0]) for r in rows}) == 7
        centres, nearest, inertia = lloyd(points[valid].astype(np.float64), start, iterations)
        np.testing.assert_allclose(found.centres, centres, rtol=1e-6)
        np.testing.assert_array_equal(np.asarray(found.assignment)[valid], nearest)
        assert np.all(np.asarray(found.assignment)[~valid] == -1)
        np.testing.assert_allclose(found.inertia, inertia, rtol=1e-4)
        inertias.append(float(found.inertia))
    assert all(b <= a for a, b in zip(inertias, inertias[1:])) and inertias[-1] < inertias[0]


def test_finds_separated_blobs_from_a_start_in_each():
    rng = np.random.default_rng(1)
    middles = np.array([[0, 0], [9, 0], [0, 9]])
    points = jnp.float32(np.repeat(middles, 20, axis=0) + 0.3 * rng.normal(size=(60, 2)))
    many = jax.jit(jax.vmap(lambda key: k_means(points, 3, key=key)))(
        jax.random.split(jax.random.key(0), 20))
    best = int(jnp.argmin(many.inertia))  # Lloyd can end elsewhere, the best of a few starts not
    centres = np.asarray(many.centres[best])
    order = [int(np.argmin(np.sum((centres - m) ** 2, axis=1))) for m in middles]
    np.testing.assert_allclose(centres[order], middles, atol=0.3)
    np.testing.assert_array_equal(many.assignment[best], np.repeat(order, 20))


def test_fewer_points_than_centres_are_gone_through_again():
    points = jnp.float32([[0.0], [5.0], [7.0], [100.0]])
    valid = jnp.array([True, True, True, False])
    found = k_means(points, 8, key=jax.random.key(0), valid=valid)
    values, times = np.unique(np.asarray(found.centres), return_counts=True)
    assert values.tolist() == [0.0, 5.0, 7.0] and sorted(times) == [2, 3, 3]
    assert found.inertia == 0


def test_nearest_rows():
    points = jnp.float32([[0.0], [1.0], [4.0], [4.5]])
    centres = jnp.float32([[0.6], [9.0], [1.2]])
    assert nearest_rows(points, centres).tolist() == [1, 3, 1]
    valid = jnp.array([True, False, True, False])
    assert nearest_rows(points, centres, valid).tolist() == [0, 2, 0]
    assert nearest_rows(points, centres[:2], count=2).tolist() == [1, 0, 3, 2]
    again = nearest_rows(points, centres[:2], valid, count=3)
    assert again.tolist() == [0, 2, 0, 2, 0, 2]
    assert again.dtype == jnp.int32


def test_the_first_of_two_equally_near_points_is_taken_whatever_the_rounding():
    rng = np.random.default_rng(0)
    pairs = np.float32(rng.normal(size=(50, 2, 64)))
    for scale in (1.0, 1e3):
        points = jnp.float32(scale * pairs).reshape(100, 64)
        centres = jnp.mean(points.reshape(50, 2, 64), axis=1)
        assert nearest_rows(points, centres).tolist() == list(range(0, 100, 2))


@pytest.mark.parametrize("change,name", [
    (dict(count=0), "count"), (dict(count=2.0), "count"), (dict(iterations=-1), "iterations"),
    (dict(points=jnp.zeros(3)), "points"), (dict(points=jnp.zeros((3, 2), int)), "points"),
    (dict(valid=jnp.ones(2, bool)), "valid"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_inputs_are_named(change, name):
    wrong = {**dict(points=jnp.zeros((3, 2)), count=2, key=jax.random.key(0)), **change}
    with pytest.raises(ConfigError, match=name):
        k_means(wrong.pop("points"), wrong.pop("count"), **wrong)
