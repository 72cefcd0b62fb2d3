"""Mixup: one blend of images and labels for a batch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.augment import mixup

B = 4


@functools.cache
def many(count=2000, probability=1.0):
    """Images that are their own one-hot label, [count, B, 1, B, 1], mixed."""
    images = jnp.eye(B)[:, None, :, None]
    keys = jax.random.split(jax.random.key(0), count)
    mixed = jax.jit(jax.vmap(lambda k: mixup(images, jnp.eye(B), k, probability=probability)))
    return tuple(np.asarray(x) for x in mixed(keys))


def test_labels_are_blended_as_images_are():
    images, labels = many()
    np.testing.assert_allclose(images[:, :, 0, :, 0], labels, atol=1e-6)
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(labels.sum(-2), 1, atol=1e-5)  # each is one image's partner


def test_there_is_one_coefficient_and_it_is_uniform():
    _, labels = many()
    for draw in labels[:200]:
        own = np.diag(draw)
        moved = own < 1 - 1e-6
        assert np.ptp(own[moved]) < 1e-5 if moved.any() else True
    own = np.diagonal(labels, axis1=1, axis2=2).min(axis=1)
    share = 1 - own[own < 1 - 1e-6]
    np.testing.assert_allclose(np.quantile(share, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)


def test_a_probability_leaves_batches_alone():
    _, labels = many(probability=0.25)
    same = np.isclose(labels, np.eye(B), atol=1e-6).all(axis=(1, 2)).mean()
    assert abs(same - (0.75 + 0.25 / 24)) < 0.04  # a permutation of four may be none
    assert np.isclose(many(count=50, probability=0.0)[1], np.eye(B)).all()
