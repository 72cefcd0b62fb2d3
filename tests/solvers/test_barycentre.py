"""The free-support barycentre: what it has to be where that is known, and what it must survive."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import ConfigError
from dd_jax.solvers.barycentre import barycentre

STATIC = ("count", "learn_weights", "iterations", "weight_iterations")
solve = jax.jit(barycentre, static_argnames=STATIC)
KEY = jax.random.key(0)


def blobs(sizes=(20, 20, 20), seed=1):
    """Points around (0, 0), (9, 0) and (0, 9), and the mean of each group."""
    rng = np.random.default_rng(seed)
    groups = [m + 0.3 * rng.normal(size=(s, 2)) for m, s in zip([[0, 0], [9, 0], [0, 9]], sizes)]
    return jnp.float32(np.concatenate(groups)), np.stack([g.mean(axis=0) for g in groups])


def in_order(found, means):
    """The rows of a result in the order of the means that they are nearest to."""
    distances = np.sum((np.asarray(found.points)[None] - means[:, None]) ** 2, axis=-1)
    order = np.argmin(distances, axis=1)
    assert len(set(order)) == len(means)
    return np.asarray(found.points)[order], np.asarray(found.weights)[order]


def test_one_point_is_the_mean_and_padding_is_not_seen():
    points, _ = blobs()
    found = solve(points, 1, key=KEY)
    np.testing.assert_allclose(found.points[0], np.mean(points, axis=0), atol=1e-5)
    np.testing.assert_allclose(found.cost, np.var(points, axis=0).sum(), rtol=1e-5)
    assert found.weights.tolist() == [1.0] and found.residual == 0
    valid = jnp.arange(60) < 40
    padded = jnp.where(valid[:, None], points, jnp.nan)
    found = solve(padded, 1, key=KEY, valid=valid)
    np.testing.assert_allclose(found.points[0], np.mean(points[:40], axis=0), atol=1e-5)


def test_separated_groups_of_one_size_have_their_means():
    points, means = blobs()
    found = solve(points, 3, key=KEY)
    np.testing.assert_allclose(in_order(found, means)[0], means, atol=1e-3)
    within = np.mean(np.sum((points - np.repeat(means, 20, axis=0)) ** 2, axis=1))
    np.testing.assert_allclose(found.cost, within, rtol=1e-3)
    assert float(found.residual) < 1e-3
    padded = jnp.concatenate([points, jnp.full((7, 2), 1e6)])
    same = solve(padded, 3, key=KEY, valid=jnp.arange(67) < 60)
    np.testing.assert_allclose(same.points, found.points, atol=1e-3)


def test_equal_weights_share_the_masses_and_learned_ones_follow_them():
    points, means = blobs((16, 28, 16))
    equal = solve(points, 3, key=KEY)
    np.testing.assert_allclose(equal.weights, 1 / 3, rtol=1e-5)
    learned = solve(points, 3, key=KEY, learn_weights=True, weight_iterations=50)
    found, weights = in_order(learned, means)
    np.testing.assert_allclose(found, means, atol=0.02)
    np.testing.assert_allclose(weights, [16 / 60, 28 / 60, 16 / 60], rtol=1e-5)
    assert float(learned.cost) < 0.1 * float(equal.cost)


def test_moves_and_scales_with_the_set():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(50, 16))
    found = solve(jnp.float32(points), 5, key=KEY)
    moved = solve(jnp.float32(30 * points + 100), 5, key=KEY)
    np.testing.assert_allclose((np.asarray(moved.points) - 100) / 30, found.points, atol=2e-3)
    np.testing.assert_allclose(moved.cost, 900 * found.cost, rtol=1e-3)
    # A mean of groups is nearer to the middle than what it is a mean of.
    assert np.var(found.points, axis=0).sum() + found.cost <= 1.001 * np.var(points, axis=0).sum()


@pytest.mark.parametrize("learn_weights", [False, True])
@pytest.mark.parametrize("kind", ["constant", "duplicates", "fewer"])
def test_degenerate_sets_stay_finite(kind, learn_weights):
    points = {"constant": jnp.full((9, 4), 7.0), "duplicates": jnp.repeat(jnp.eye(4)[:3], 3, 0),
              "fewer": jnp.full((9, 4), 7.0).at[0].set(1.0)}[kind]
    valid = jnp.arange(9) < (2 if kind == "fewer" else 9)
    found = solve(points, 4, key=KEY, valid=valid, learn_weights=learn_weights)
    for leaf in found:
        assert np.all(np.isfinite(leaf))
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-5)
    assert np.all(np.asarray(found.points) >= points.min() - 1e-3)
    assert np.all(np.asarray(found.points) <= points.max() + 1e-3)


@pytest.mark.parametrize("change,name", [
    (dict(count=0), "count"), (dict(iterations=0), "iterations"),
    (dict(weight_iterations=0), "weight_iterations"), (dict(points=jnp.zeros(3)), "points"),
    (dict(valid=jnp.ones(2, bool)), "valid"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_inputs_are_named(change, name):
    wrong = {**dict(points=jnp.zeros((3, 2)), count=2, key=KEY), **change}
    with pytest.raises(ConfigError, match=name):
        barycentre(wrong.pop("points"), wrong.pop("count"), **wrong)
