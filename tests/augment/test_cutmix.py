"""CutMix: where pixels come from, what labels say, and how much is cut."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.augment import cutmix

BATCH, SIDE = 5, 8


def coded():
    """Pixel (i, y, x) holds 1000 i + 10 y + x: it says where it came from."""
    place = 10 * np.arange(SIDE)[:, None] + np.arange(SIDE)
    images = 1000 * np.arange(BATCH)[:, None, None, None] + place[None, :, :, None]
    return np.asarray(images, np.float32)


@functools.cache
def many(count=1500, probability=1.0):
    keys = jax.random.split(jax.random.key(0), count)
    labels = jnp.eye(BATCH)
    mixed = jax.jit(jax.vmap(lambda k, p: cutmix(jnp.asarray(coded()), labels, k, probability=p),
                             (0, None)))
    return tuple(np.asarray(x) for x in mixed(keys, probability))


def test_pixels_stay_in_place_and_come_from_one_partner():
    images, _ = many()
    source = (images // 1000).astype(int)[..., 0]
    np.testing.assert_array_equal(images[..., 0] - 1000 * source,
                                  np.broadcast_to(coded()[0, ..., 0], source.shape))
    own = np.arange(BATCH)
    for draw in source[:300]:
        partners = [set(draw[i].ravel().tolist()) - {i} for i in own]
        assert all(len(p) <= 1 for p in partners)
        named = [p.pop() if p else i for i, p in zip(own, partners)]
        if (draw != own[:, None, None]).any():
            assert sorted(named) == list(own)  # everybody is the partner of exactly one


def test_the_cut_is_one_rectangle_for_the_whole_batch():
    images, _ = many()
    source = (images // 1000).astype(int)[..., 0]
    for draw in source[:300]:
        cuts = [draw[i] != i for i in range(BATCH) if (draw[i] != i).any()]
        for cut in cuts:
            np.testing.assert_array_equal(cut, cuts[0])
            rows, cols = cut.any(axis=1), cut.any(axis=0)
            np.testing.assert_array_equal(cut, rows[:, None] & cols[None, :])
            for line in (rows, cols):
                assert np.abs(np.diff(np.pad(line.astype(int), 1))).sum() == 2  # one stretch


def test_labels_are_shares_of_the_area():
    images, labels = many()
    source = (images // 1000).astype(int)[..., 0]
    for draw, label in zip(source[:300], labels[:300]):
        shares = [[(draw[i] == j).mean() for j in range(BATCH)] for i in range(BATCH)]
        np.testing.assert_allclose(label, shares, atol=1e-6)


def expected_share():
    """Mean area of the cut: area u, sides floor(8 sqrt(u)) around uniform centres, clipped.

    The side is rounded down to an even number, since it reaches half of it to both sides.
    """
    total = 0.0
    for side in range(SIDE):
        chance = ((side + 1) ** 2 - side**2) / SIDE**2  # of floor(8 sqrt(u)) = side
        half = side // 2
        lengths = [min(c + half, SIDE) - max(c - half, 0) for c in range(SIDE)]
        total += chance * (np.mean(lengths) / SIDE) ** 2
    return total


def test_the_area_is_distributed_as_published():
    images, _ = many()
    source = (images // 1000).astype(int)[..., 0]
    partner_is_other = (source != np.arange(BATCH)[:, None, None]).any(axis=(2, 3))
    share = (source != np.arange(BATCH)[:, None, None]).mean(axis=(2, 3))
    # An image that is its own partner shows no cut, one time in five: take the largest of a draw.
    area = share.max(axis=1)
    assert abs(area.mean() - expected_share()) < 0.015
    assert abs(partner_is_other.mean() - 0.8 * (area > 0).mean()) < 0.03
    assert area.std() > 0.1 and area.max() > 0.5


@pytest.mark.parametrize("probability,low,high", [(0.0, 0.0, 0.0), (0.5, 0.42, 0.58)])
def test_probability_is_that_of_the_batch(probability, low, high):
    images, labels = many(probability=probability)
    always = (many()[0] != coded()).any(axis=(1, 2, 3, 4)).mean()
    changed = (images != coded()).any(axis=(1, 2, 3, 4))
    assert low <= changed.mean() / always <= high
    np.testing.assert_array_equal(images[~changed],
                                  np.broadcast_to(coded(), images[~changed].shape))
    np.testing.assert_array_equal(labels[~changed],
                                  np.broadcast_to(np.eye(BATCH), labels[~changed].shape))


def test_images_need_not_be_square():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 10, 2)), jnp.float32)
    mixed, labels = jax.jit(cutmix)(images, jnp.eye(3), jax.random.key(3), probability=1.0)
    assert mixed.shape == images.shape
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)
