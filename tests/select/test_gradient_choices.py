"""Choices by last-layer gradients against slow references that write every gradient out."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.errors import ConfigError
from dd_jax.select import gradient_selectors
from dd_jax.select import influence as influences
from dd_jax.select.craig import _craig, craig
from dd_jax.select.gradient_matching import _missing_along, gradient_matching
from dd_jax.select.gradients import LastLayer, take
from dd_jax.select.influence import Influence, in_turns
from dd_jax.select.quantization import _bin, bins_of, quantized
from tests.select import reference_gradients as slow
from tests.select import reference_selection
from tests.select.test_gradients import seen_of
from tests.select.test_greedy_choices import sizes_of

KEY = jax.random.key(0)


def padded(seen, more):
    """Rows of NaN behind, and which are real."""
    size = len(seen.error)
    return (jax.tree.map(lambda x: jnp.concatenate([x, jnp.full((more, x.shape[1]), jnp.nan)]),
                         seen), jnp.arange(size + more) < size)


@pytest.mark.parametrize("block", [None, 1, 7, 40])
def test_craig_is_plain_greedy_on_its_facility_location(block):
    seen = seen_of(40)
    written = slow.written_out(*seen)
    wanted = reference_selection.plain_greedy(slow.craig_value, written, 12)
    for count in (1, 5, 12):
        found = craig(*padded(seen, 9), count, block=block)
        assert found.rows.tolist() == wanted[:count]
        assert found.weights.tolist() == slow.craig_weights(wanted[:count], written).tolist()


def test_two_of_craig_are_nearly_the_best_two():
    seen = seen_of(12, seed=5)
    written = slow.written_out(*seen)
    best = max(slow.craig_value(pair, written) for pair in itertools.combinations(range(12), 2))
    found = craig(seen, jnp.ones(12, bool), 2).rows
    assert slow.craig_value(found, written) >= (1 - 1 / np.e) * best


def test_of_equal_images_each_pick_counts_itself():
    seen = take(seen_of(3), jnp.array([0, 0, 0, 1, 1, 2]))
    found = craig(seen, jnp.ones(6, bool), 6)
    assert sorted(found.rows.tolist()) == list(range(6)) and found.weights.tolist() == [1] * 6


def test_one_image_far_from_all_takes_no_digits_from_the_others():
    seen = seen_of(40)
    small = seen._replace(error=seen.error * 1e-4)
    far = LastLayer(jnp.concatenate([small.error, 100 * seen.error[:1]]),
                    jnp.concatenate([seen.inputs, seen.inputs[:1]]))
    first = craig(far, jnp.ones(41, bool), 1).rows[0]
    written = slow.written_out(*far)
    sums = np.linalg.norm(written[:, None] - written, axis=2)[:, :40].sum(axis=1)
    assert first in np.argsort(sums)[:2]


@pytest.mark.parametrize("ridge", [1.0, 0.1, 1e-6])
def test_gradient_matching_is_the_pursuit_of_written_out_gradients(ridge):
    seen = seen_of(40, seed=2)
    written = slow.written_out(*seen)
    wanted = slow.pursuit(written, 8, ridge)
    for count in (1, 4, 8):
        found = gradient_matching(*padded(seen, 9), count, ridge=ridge)
        assert found.rows.tolist() == wanted[:count]
        weights = slow.best_weights_above_zero(wanted[:count], written, ridge)
        np.testing.assert_allclose(found.weights, weights / weights.mean(), rtol=1e-3, atol=1e-4)


def test_negative_weights_become_zero_and_keep_their_places():
    error = jnp.array([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0]])
    found = gradient_matching(LastLayer(error, jnp.zeros((3, 1))), jnp.ones(3, bool), 3)
    assert sorted(found.rows.tolist()) == [0, 1, 2]
    assert found.weights[found.rows.tolist().index(1)] == 0
    np.testing.assert_allclose(found.weights.mean(), 1, rtol=1e-6)


@pytest.mark.parametrize("ridge", [1.0, 0.0])
def test_gradients_that_are_zero_or_alike_have_weights(ridge):
    none = LastLayer(jnp.zeros((4, 2)), jnp.ones((4, 3)))
    found = gradient_matching(none, jnp.ones(4, bool), 3, ridge=ridge)
    assert found.weights.tolist() == [1, 1, 1] and len(set(found.rows.tolist())) == 3
    alike = take(seen_of(1), jnp.zeros(5, jnp.int32))
    found = gradient_matching(alike, jnp.ones(5, bool), 3, ridge=ridge)
    assert np.isfinite(found.weights).all() and (found.weights >= 0).all()
    np.testing.assert_allclose(found.weights.mean(), 1, rtol=1e-5)


@pytest.mark.parametrize("size,count", [(40, 10), (23, 4)])
def test_bins_are_those_of_a_table_of_likeness(size, count):
    seen = seen_of(size, seed=3)
    found = bins_of(*padded(seen, 6), bins=count)
    assert [part.tolist() for part in found] == slow.bins(slow.written_out(*seen), count)


def test_more_bins_than_images_are_empty_at_last():
    seen = seen_of(5, seed=3)
    found = bins_of(seen, jnp.ones(5, bool), bins=7)
    assert [len(part) for part in found] == [1, 1, 1, 1, 1, 0, 0]
    wanted = slow.bins(slow.written_out(*seen), 7)  # the last two are alike to one another
    assert [part.tolist() for part in found[:3]] == wanted[:3]
    assert quantized(seen, jnp.ones(5, bool), 5, KEY, bins=7).rows.tolist() == [
        int(part[0]) for part in found[:5]]


def test_quantized_images_are_drawn_from_each_bin_by_turns():
    seen = seen_of(43, seed=4)
    parts = [set(part) for part in slow.bins(slow.written_out(*seen), 5)]
    firsts = []
    for seed in range(30):
        rows = quantized(*padded(seen, 6), 43, jax.random.key(seed), bins=5).rows.tolist()
        assert sorted(rows) == list(range(43))
        assert all(row in parts[i % 5] for i, row in enumerate(rows[:40]))
        some = quantized(*padded(seen, 6), 12, jax.random.key(seed), bins=5)
        assert some.rows.tolist() == rows[:12] and some.weights.tolist() == [1] * 12
        firsts.append(rows[0])
    assert set(firsts) <= parts[0] and len(set(firsts)) > 5


def test_influence_is_kernel_ridge_regression_of_cosines():
    seen, labels = jax.tree.map(np.asarray, seen_of(50)), np.arange(50) % 3
    classes = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    held = influences.held_out_of(classes, 0.2, KEY)
    assert np.bincount(labels[held]).tolist() == [3, 3, 3]
    marks = np.flatnonzero(~held)[::2]
    aligned = influences.alignments(take(seen, marks), [
        take(seen, np.flatnonzero(held & (labels == label))) for label in range(3)])
    found = influences.propagated(seen.inputs, marks, aligned, 2.0, 0.01, block=16)
    wanted = slow.influence(slow.written_out(*seen), seen.inputs, held, marks, labels, 2.0, 0.01)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    far = np.linalg.norm(seen.inputs[:, None] - seen.inputs, axis=2)[np.triu_indices(50, 1)]
    assert influences.kernel_width(seen.inputs, KEY) == pytest.approx(np.median(far), rel=1e-5)


def test_a_class_without_images_is_no_target_and_alike_images_have_a_kernel():
    seen = jax.tree.map(np.asarray, seen_of(6))
    aligned = influences.alignments(seen, [seen, take(seen, np.arange(0))])
    assert (aligned[:, 1] == 0).all() and (aligned[:, 0] != 0).all()
    assert influences.kernel_width(np.ones((5, 3), np.float32), KEY) == 1.0


@pytest.mark.parametrize("classes", [[0, 1, 2], [1]])
def test_classes_take_turns_and_held_out_images_are_last(classes):
    rng = np.random.default_rng(1)
    labels = np.int32(rng.permutation(np.resize(classes, 20)))
    values, held = np.float32(rng.normal(size=(25, 3))), rng.uniform(size=25) < 0.3
    known = Influence(jnp.asarray(values), jnp.asarray(held),
                      jnp.asarray(np.append(labels, [0, 1, 2, 0, 1])))
    valid = jnp.arange(25) < 20
    orders = [[label for label in jax.random.permutation(jax.random.fold_in(KEY, turn), 3).tolist()
               if label in classes] for turn in range(20)]
    wanted = slow.turns(values[:20], orders, held[:20], 20)
    for count in (1, 7, 20):
        assert in_turns(known, valid, count, KEY).rows.tolist() == wanted[:count]


def test_the_selector_of_influence_looks_at_landmarks_only():
    seen, labels = jax.tree.map(np.asarray, seen_of(60)), np.arange(60) % 4
    data = from_arrays(np.zeros((60, 1, 1), np.uint8), labels)
    known = influences.influence(0.25, landmarks=10).score(data, {"gradients": seen}, KEY)
    assert known.influence.shape == (60, 4) and known.held_out.sum() == 16
    assert np.isfinite(known.influence).all() and known.influence.dtype == np.float32


def test_settings_of_selectors_that_cannot_be():
    for make, told in ((lambda: gradient_selectors.dq(0), "bins"),
                       (lambda: gradient_selectors.grad_match(-1.0), "ridge"),
                       (lambda: influences.influence(1.5), "held_out"),
                       (lambda: influences.influence(landmarks=0), "landmarks"),
                       (lambda: influences.influence(damping=-0.1), "damping")):
        with pytest.raises(ConfigError, match=told):
            make()


def test_no_array_of_all_pairs_or_of_all_gradients_is_formed():
    """Of 3,000 images: pairs are 9 million numbers, written-out gradients 1.65 million."""
    size, seen = 3000, LastLayer(jnp.zeros((3000, 50)), jnp.zeros((3000, 10)))
    valid = jnp.ones(size, bool)
    for traced in (
        lambda seen, valid: _craig(seen, valid, 100, block=256),
        lambda seen, valid: _missing_along(seen, jnp.zeros((50, 11)), jnp.zeros(size)),
        lambda seen, valid: _bin(seen, valid, 100, 1.0),
    ):
        assert max(sizes_of(jax.make_jaxpr(traced)(seen, valid).jaxpr)) <= 256 * size
