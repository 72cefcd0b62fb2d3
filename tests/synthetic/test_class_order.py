"""Classes on a grid, and the distances that place them."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax.data import from_arrays, identity, normalise, standardise
from dd_jax.errors import ConfigError
from dd_jax.synthetic import class_order, mean_image_distances
from tests.laws import members


def reference(distances, height, width):
    """The same by a search over all four neighbours of a half-filled grid."""
    order, left = np.full((height, width), -1), set(range(height * width))
    for line in range(height + width - 1):
        for y in reversed(range(height)):
            x = line - y
            if not 0 <= x < width:
                continue
            beside = [order[v, u] for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                      if 0 <= v < height and 0 <= u < width and order[v, u] >= 0]
            order[y, x] = min(left, key=lambda c: (sum(distances[c, n] for n in beside), c))
            left.remove(order[y, x])
    return order


@pytest.mark.parametrize("height, width", [(2, 5), (5, 2), (3, 4), (1, 6), (1, 1)])
def test_greedy_filling_against_a_search(height, width):
    points = np.random.default_rng(height).normal(size=(height * width, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    found = class_order(distances, grid=(height, width))
    assert found.dtype == np.int32 and found[0, 0] == 0
    np.testing.assert_array_equal(found, reference(distances, height, width))


def test_a_diagonal_is_filled_from_the_lower_left():
    # Class 2 is nearest to class 0, so the second cell that is filled takes it.
    distances = np.array([[0, 5, 1, 9], [5, 0, 2, 2], [1, 2, 0, 2], [9, 2, 2, 0]])
    assert class_order(distances, grid=(2, 2)).tolist() == [[0, 1], [2, 3]]


def test_of_equal_distances_the_first_class_is_taken():
    assert class_order(np.zeros((6, 6)), grid=(2, 3)).tolist() == [[0, 2, 4], [1, 3, 5]]


def test_distances_of_mean_images():
    data = members.toy_data()
    normaliser = standardise(data)
    images = np.asarray(normalise(normaliser, data.images), np.float64)
    labels = np.asarray(data.labels)
    means = [images[labels == c].mean(axis=0) for c in range(2)]
    expected = np.sqrt(((means[0] - means[1]) ** 2).sum())
    found = mean_image_distances(data, normaliser)
    np.testing.assert_allclose(found, [[0, expected], [expected, 0]], rtol=1e-6)
    on_host = from_arrays(np.asarray(data.images), labels, device=False)
    np.testing.assert_allclose(mean_image_distances(on_host, normaliser), found, rtol=1e-12)


def test_padding_of_a_smaller_class_is_not_counted():
    pixels = np.float32([0, 0.5, 1, 0.25]).reshape(4, 1, 1, 1)
    data = from_arrays(pixels, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(mean_image_distances(data, identity((1, 1, 1)))[0, 1], 0.25)


def test_refusals():
    square = np.zeros((4, 4))
    for grid in ((2, 3), (2,), (2, 0), 4, (2.0, 2)):
        with pytest.raises(ConfigError, match="distances have shape|class grid"):
            class_order(square, grid=grid)
    for distances in (np.zeros((4, 3)), np.full((4, 4), np.nan), np.zeros(4)):
        with pytest.raises(ConfigError, match=r"expected \[4, 4\] finite"):
            class_order(distances, grid=(2, 2))
    for distances in ("cosine", [[0, 1], [2]], [[0j]]):
        with pytest.raises(ConfigError, match=r"expected \[4, 4\] numbers.*mean_image_distances"):
            class_order(distances, grid=(2, 2))
