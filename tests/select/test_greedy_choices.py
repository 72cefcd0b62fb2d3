"""Greedy choices against slow references that form every pair."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.select import greedy_choices, rules
from dd_jax.select.facility_location import facility_location
from dd_jax.select.medoids import medoids
from dd_jax.solvers.k_means import k_means
from tests.select import reference_selection as slow

KEY = jax.random.key(0)
CHOICES = {
    "herding": (greedy_choices.herding, slow.herding),
    "k_center": (greedy_choices.k_center, slow.k_center),
    "graph_cut": (greedy_choices.graph_cut, lambda p, n: slow.plain_greedy(slow.graph_cut, p, n)),
    "facility_location": (facility_location,
                          lambda p, n: slow.plain_greedy(slow.facility_location, p, n)),
}


def points_of(count, width=5, seed=0, mean=0.0):
    return np.float32(np.random.default_rng(seed).normal(size=(count, width)) + mean)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("mean", [0.0, 30.0], ids=["about 0", "far from 0"])
def test_equals_the_slow_choice_in_its_order_and_never_sees_padding(name, mean):
    choose, reference = CHOICES[name]
    points = points_of(40, mean=mean)
    if mean and name in ("graph_cut", "facility_location"):
        points = points_of(40, mean=0.5)  # directions that are all alike are a matter of rounding
    wanted = reference(points, 12)
    padded = np.concatenate([points, np.full((9, 5), np.nan, np.float32)])
    for count in (1, 5, 12):
        found = choose(jnp.asarray(padded), jnp.arange(49) < 40, count, KEY)
        assert found.rows.tolist() == wanted[:count] and found.weights.tolist() == [1.0] * count


@pytest.mark.parametrize("block", [1, 3, 16, 40])
def test_lazy_gains_are_plain_gains_whatever_the_block(block):
    points = points_of(40, seed=3)
    wanted = slow.plain_greedy(slow.facility_location, points, 40)
    found = facility_location(jnp.asarray(points), jnp.ones(40, bool), 40, block=block)
    gains = [slow.facility_location(places[: n + 1], points) for places in (found.rows, wanted)
             for n in range(40)]
    np.testing.assert_allclose(gains[:40], gains[40:], rtol=1e-6)  # once all is covered, any do
    assert found.rows[:20].tolist() == wanted[:20] and len(set(found.rows.tolist())) == 40


def test_two_of_facility_location_are_nearly_the_best_two():
    points = points_of(12, seed=5)
    found = facility_location(jnp.asarray(points), jnp.ones(12, bool), 2).rows
    best = max(slow.facility_location(pair, points)
               for pair in itertools.combinations(range(12), 2))
    assert slow.facility_location(found, points) >= (1 - 1 / np.e) * best


def sizes_of(jaxpr):
    """How many numbers each value of a program has."""
    for equation in jaxpr.eqns:
        yield from (np.prod(v.aval.shape) for v in equation.outvars)
        for inner in jax.tree.leaves(tuple(equation.params.values())):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from sizes_of(getattr(inner, "jaxpr", inner))


def test_no_array_of_all_pairs_is_formed():
    """Of 3,000 images all pairs are 9 million numbers; nothing is as large as a fifth of them."""
    points, valid = jnp.zeros((3000, 4)), jnp.ones(3000, bool)
    for choose in (*(choice for choice, _ in CHOICES.values()), medoids):
        traced = jax.make_jaxpr(functools.partial(choose, valid=valid, count=100, key=KEY))(points)
        assert max(sizes_of(traced.jaxpr)) < 9e6 / 5, choose


def test_medoids_are_distinct_and_nearest_to_the_centres():
    points = jnp.asarray(points_of(50, seed=2))
    valid = jnp.arange(50) < 45
    found = medoids(points, valid, 6, KEY)
    clusters = k_means(points, 6, key=KEY, valid=valid, iterations=10)
    far = np.linalg.norm(np.asarray(points)[:45, None] - np.asarray(clusters.centres), axis=2)
    assert set(found.rows.tolist()) == set(far.argmin(axis=0).tolist())
    sizes = np.bincount(np.asarray(clusters.assignment)[:45], minlength=6)
    first = found.rows[0]
    assert far[first].argmin() == sizes.argmax()
    twice = medoids(jnp.zeros((8, 2)), jnp.ones(8, bool), 8, KEY)
    assert sorted(twice.rows.tolist()) == list(range(8))


def test_k_means_in_chunks_are_k_means():
    points, valid = jnp.asarray(points_of(50, seed=2)), jnp.arange(50) < 45
    whole, parts = (k_means(points, 4, key=KEY, valid=valid, chunk=chunk) for chunk in (None, 7))
    np.testing.assert_array_equal(whole.assignment, parts.assignment)
    np.testing.assert_allclose(whole.centres, parts.centres, rtol=1e-5, atol=1e-6)


def test_rules_of_scores():
    scores, valid = jnp.float32([5, 1, 4, 2, 3, 99]), jnp.arange(6) < 5
    assert rules.top(scores, valid, 3).rows.tolist() == [0, 2, 4]
    assert rules.bottom(scores, valid, 2).rows.tolist() == [1, 3]
    for size, count in itertools.product((4, 5), (1, 2, 3, 4)):
        found = rules.middle(scores, jnp.arange(6) < size, count).rows.tolist()
        begin = (size - count) // 2
        assert sorted(found) == sorted(np.argsort(scores[:size])[begin : begin + count].tolist())
    drawn = [rules.anything(scores, valid, 5, jax.random.key(i)).rows.tolist() for i in range(20)]
    assert all(sorted(d) == list(range(5)) for d in drawn) and len(set(map(tuple, drawn))) > 10
