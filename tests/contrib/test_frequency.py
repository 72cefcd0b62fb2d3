"""Images as a few coefficients of their discrete cosine transform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from dd_jax.contrib import frequency, frequency_masks
from dd_jax.data import from_arrays, identity, rows_per_class, standardise
from dd_jax.errors import ConfigError, DataError
from dd_jax.synthetic import stored_bytes
from dd_jax.types import SyntheticSet
from tests.laws import members

KEY = jax.random.key(1)
SHAPE = (6, 8, 2)


def start(count=4):
    images = np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float32)
    return SyntheticSet(jnp.asarray(images), jnp.repeat(jnp.eye(2), count // 2, axis=0))


def random_masks(keep, seed=1):
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, SHAPE[0] * SHAPE[1]), bool)
    for mask in masks:
        mask[rng.choice(mask.size, keep, replace=False)] = True
    return masks.reshape(2, *SHAPE[:2])


def test_all_frequencies_give_the_start():
    head = frequency(np.ones((2, *SHAPE[:2]), bool))
    params = head.init(jax.random.key(0), start())
    found = head.decode(params, KEY)
    np.testing.assert_allclose(found.images, start().images, atol=2e-6)
    np.testing.assert_array_equal(found.labels, start().labels)


def test_masked_transform_against_scipy():
    masks = random_masks(7)
    assert (masks[0] != masks[1]).any()
    head = frequency(masks)
    params = head.init(jax.random.key(0), start())
    assert params["coefficients"].shape == (4, 7, 2)
    spectra = scipy.fft.dctn(np.asarray(start().images, np.float64), axes=(1, 2), norm="ortho")
    spectra *= np.repeat(masks, 2, axis=0)[..., None]
    np.testing.assert_allclose(params["coefficients"][2, :, 1], spectra[2, ..., 1][masks[1]],
                               atol=2e-6)
    expected = scipy.fft.idctn(spectra, axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(head.decode(params, KEY).images, expected, atol=2e-6)


def test_the_derivative_is_the_transform_itself():
    """The decoder is an isometry on the kept frequencies: its transpose is the encoder."""
    head = frequency(random_masks(7))
    params = head.init(jax.random.key(0), start())
    weights = np.random.default_rng(2).normal(size=(4, *SHAPE)).astype(np.float32)

    def product(params):
        return jnp.vdot(weights, head.decode(params, KEY).images)

    gradient = jax.grad(product)(params)
    encoded = head.init(jax.random.key(0), start()._replace(images=jnp.asarray(weights)))
    np.testing.assert_allclose(gradient["coefficients"], encoded["coefficients"], atol=2e-6)
    assert not jnp.any(gradient["labels"])


def test_label_heads_cost_and_groups():
    head = frequency(random_masks(7), labels="soft")
    given = start()._replace(learning_rate=jnp.float32(0.1))
    params = head.init(jax.random.key(0), given)
    assert stored_bytes(params) == 4 * (4 * 7 * 2 + 4 * 2 + 1)
    assert head.groups(params) == {"coefficients": "images", "labels": "labels",
                                   "log_learning_rate": "learning_rate"}
    found = head.decode(params, KEY)
    np.testing.assert_allclose(found.labels.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.learning_rate, 0.1, rtol=1e-6)


def test_masks_keep_the_largest_variance():
    rng = np.random.default_rng(3)
    labels = np.arange(40) % 2
    # Smooth images, each class along another axis, so that classes keep other frequencies.
    images = rng.normal(size=(40, *SHAPE))
    images[labels == 0] = np.cumsum(images[labels == 0], axis=1)
    images[labels == 1] = np.cumsum(images[labels == 1], axis=2)
    images = (images - images.min()) / np.ptp(images)
    data = from_arrays(images.astype(np.float32), labels)
    masks = frequency_masks(data, identity(SHAPE), keep=9)
    assert masks.shape == (2, *SHAPE[:2]) and (masks.sum(axis=(1, 2)) == 9).all()
    assert (masks[0] != masks[1]).any()
    for label in range(2):
        own = [scipy.fft.dctn(image.mean(-1), norm=None) for image in images[labels == label]]
        spread = np.array([[np.var([f[k, m] for f in own]) for m in range(8)] for k in range(6)])
        assert spread[masks[label]].min() > spread[~masks[label]].max()


def test_masks_of_some_rows_and_of_a_host_set():
    data = members.toy_data()
    rows = np.asarray(rows_per_class(data, KEY, 5))
    some = frequency_masks(data, standardise(data), keep=4, rows=rows)
    images = np.asarray(data.images)
    small = from_arrays(images[rows.reshape(-1)], np.repeat([0, 1], 5), device=False)
    np.testing.assert_array_equal(some, frequency_masks(small, standardise(data), keep=4))


def test_refusals():
    data = members.toy_data()
    with pytest.raises(ConfigError, match="keep is 65"):
        frequency_masks(data, standardise(data), keep=65)
    with pytest.raises(ConfigError, match="rows"):
        frequency_masks(data, standardise(data), keep=4, rows=[[0], [1]])
    lonely = from_arrays(np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 0, 1]))
    with pytest.raises(DataError, match="1"):
        frequency_masks(lonely, identity((4, 4, 1)), keep=4)
    uneven = np.ones((2, *SHAPE[:2]), bool)
    uneven[0, 0, 0] = False
    for masks in (uneven, np.zeros((2, 4, 4), bool), np.ones((4, 4), bool)):
        with pytest.raises(ConfigError, match="masks of shape"):
            frequency(masks)
    with pytest.raises(ConfigError, match="6x8"):
        frequency(random_masks(7)).init(KEY, start()._replace(images=jnp.zeros((4, 8, 8, 1))))
    with pytest.raises(ConfigError, match="multiple of 2"):
        frequency(random_masks(7)).init(KEY, SyntheticSet(jnp.zeros((3, *SHAPE)), jnp.eye(3)))
