"""Representatives of each class: whose they are, how many, and that they cover their class."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from dd_jax.data import from_arrays, identity, standardise
from dd_jax.errors import ConfigError
from dd_jax.train import representatives


def groups(sizes=((30, 4, 2), (3, 2)), device=True):
    """Grey 2x2 images: class c has groups of sizes[c] images, 40 grey values apart."""
    rng = np.random.default_rng(0)
    values, labels, kinds = [], [], []
    for c, class_sizes in enumerate(sizes):
        for g, n in enumerate(class_sizes):
            values.append(40 * g + 20 * c + rng.integers(0, 5, (n, 2, 2)))
            labels += [c] * n
            kinds += [g] * n
    order = rng.permutation(len(labels))
    data = from_arrays(np.concatenate(values).astype(np.uint8)[order], np.array(labels)[order],
                       device=device)
    return data, np.array(kinds)[order]


def flat(images):
    return images.reshape(len(images), -1)


@functools.partial(jax.jit, static_argnames=("count", "candidates", "subsample"))
def choose(data, seed, **options):
    return representatives(data, flat, key=jax.random.key(seed), normaliser=identity((2, 2, 1)),
                           **options)


def test_rows_belong_to_their_class_and_cover_it():
    data, _ = groups()
    rows = np.stack([choose(data, seed, count=4) for seed in range(8)])
    assert rows.shape == (8, 2, 4) and rows.dtype == np.int32
    np.testing.assert_array_equal(data.labels[rows], np.tile([[0] * 4, [1] * 4], (8, 1, 1)))
    pixels = np.asarray(data.images, float).reshape(len(data.labels), -1)
    of_class = np.flatnonzero(np.asarray(data.labels) == 0)

    def spread(chosen):
        """Mean squared distance from an image of class 0 to the nearest chosen one."""
        between = ((pixels[of_class, None] - pixels[chosen]) ** 2).sum(-1)
        return between.min(axis=1).mean()

    rng = np.random.default_rng(1)
    random = np.mean([spread(rng.choice(of_class, 4, replace=False)) for _ in range(100)])
    assert np.mean([spread(r[0]) for r in rows]) < 0.5 * random


def test_subsample_takes_neighbours_of_fewer_centres():
    data, kinds = groups(sizes=((6, 6), (6, 6)))
    rows = np.asarray(choose(data, 0, count=6, subsample=3))
    for of_class in rows:
        for of_centre in of_class.reshape(2, 3):
            assert len(set(of_centre)) == 3 and len(set(kinds[of_centre])) == 1
        assert len(set(kinds[of_class])) == 2


def test_small_classes_are_gone_through_again():
    data, _ = groups()
    rows = np.asarray(choose(data, 3, count=12))
    values, times = np.unique(rows[1], return_counts=True)
    assert len(values) == 5 and set(times) <= {2, 3}
    np.testing.assert_array_equal(data.labels[values], 1)


def test_candidates_bound_what_is_embedded():
    data, _ = groups()
    seen = []

    def embed(images):
        seen.append(images.shape)
        return flat(images)

    rows = jax.eval_shape(lambda data, key: representatives(
        data, embed, count=2, key=key, candidates=4, normaliser=identity((2, 2, 1))),
        data, jax.random.key(0))
    assert set(seen) == {(4, 2, 2, 1)} and rows.shape == (2, 2)
    every = {int(r) for seed in range(20) for r in choose(data, seed, count=2, candidates=4)[0]}
    assert len(every) > 4  # other candidates with another key


def test_images_go_through_the_normaliser():
    data, _ = groups()
    images = []

    def embed(x):
        jax.debug.callback(lambda v: images.append(np.asarray(v)), x)
        return flat(x)

    rows = representatives(data, embed, count=2, key=jax.random.key(0), candidates=5,
                           normaliser=standardise(groups(((4,), (4,)))[0]))
    jax.block_until_ready(rows)
    jax.effects_barrier()
    assert len(images) == 2 and max(x.max() for x in images) > 2  # standardised by dark images


@pytest.mark.parametrize("options,message", [
    (dict(count=0), "count"), (dict(count=4, candidates=3), "candidates"),
    (dict(count=4, subsample=3), "subsample"), (dict(count=4, iterations=-1), "iterations"),
    (dict(count=4, candidates=True), "candidates"), (dict(count=4, subsample=0), "subsample"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        representatives(groups()[0], flat, key=jax.random.key(0), normaliser=identity((2, 2, 1)),
                        **options)


def test_images_on_the_host_are_refused():
    with pytest.raises(ConfigError, match="device"):
        representatives(groups(device=False)[0], flat, count=2, key=jax.random.key(0),
                        normaliser=identity((2, 2, 1)))
