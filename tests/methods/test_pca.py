"""PCA: which images are in a grid, and where."""

from __future__ import annotations

import numpy as np
import pytest

import dd_jax as dd
from dd_jax.errors import ConfigError, DataError
from tests.laws import members
from tests.methods import tiny
from tests.methods.tiny import made


def shrunk(image):
    """Means of 2 x 2 pixels, [4, 4]."""
    return image.reshape(4, 2, 4, 2).mean(axis=(1, 3))


def enlarged(small):
    """Bilinear, [8, 8]: pixel centres at halves, edges clamped."""
    at = (np.arange(8) + 0.5) / 2 - 0.5
    wide = np.stack([np.interp(at, np.arange(4), row) for row in small])
    return np.stack([np.interp(at, np.arange(4), column) for column in wide.T], axis=1)


def test_grids_hold_the_easiest_images_in_order(store):
    found, toy = made("pca", store, ipc=2), members.toy_data()
    rows = np.asarray(found.recipe["rows"]).reshape(4, 4)
    easiest = made("el2n", store, ipc=8, order="bottom").recipe["rows"]
    assert rows.ravel().tolist() == easiest and found.ipc == 2
    assert np.asarray(toy.labels)[rows].tolist() == [[0] * 4, [0] * 4, [1] * 4, [1] * 4]
    real = np.asarray(toy.images)[rows.ravel()].astype(np.float64) / 255
    for tile, image in zip(dd.store.as_numpy(found)["images_unit"], real, strict=True):
        np.testing.assert_allclose(tile[..., 0], enlarged(shrunk(image[..., 0])), atol=1e-5)


def test_networks_see_the_tiles_and_the_grid_is_what_is_paid(store):
    found = made("pca", store, ipc=2)
    shown = found.trainable()
    assert shown.images.shape == (16, 8, 8, 1)
    assert shown.labels.argmax(axis=1).tolist() == [0] * 8 + [1] * 8
    assert found.stored_bytes == 4 * (8 * 8 * 4 + 2 * 4)


@pytest.mark.parametrize("changes", [dict(total=8), dict(share=0.5), dict(within="set"),
                                     dict(short="fewer")])
def test_budgets_that_leave_holes_are_refused(changes):
    [name] = changes
    with pytest.raises(ConfigError, match=f"{name} is"):
        tiny.plan("pca", **changes)


def test_classes_without_a_grid_of_images_are_refused_by_what_helps():
    with pytest.raises(DataError, match=r"class 0 has 32 images, expected at least 36.*factor=1"):
        tiny.plan("pca", ipc=9)
