"""The baseline's images: as many per class as the budget says, also of a fraction."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from dd_jax.data import from_arrays
from dd_jax.evaluate.random_images import random_images

CLASSES = 5


@pytest.fixture(scope="module")
def data():
    labels = np.arange(40) % CLASSES
    images = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1)  # an image names its row
    return from_arrays(images, labels)


@pytest.mark.parametrize("ipc,counts", [
    (1, {1: 5}), (3, {3: 5}), (0.2, {0: 4, 1: 1}), (0.6, {0: 2, 1: 3}), (0.7, {0: 2, 1: 3}),
    (2.4, {2: 3, 3: 2}), (0.01, {0: 4, 1: 1}),
])
def test_every_class_has_its_share(data, ipc, counts):
    images, classes = random_images(data, jax.random.key(0), ipc)
    rows, classes = np.asarray(images).ravel(), np.asarray(classes)
    assert len(set(rows.tolist())) == len(rows) and (rows % CLASSES == classes).all()
    assert (np.diff(classes) >= 0).all()
    found = np.bincount(classes, minlength=CLASSES)
    assert dict(zip(*np.unique(found, return_counts=True))) == counts


def test_the_classes_of_a_fraction_are_drawn(data):
    seen = [tuple(np.asarray(random_images(data, jax.random.key(i), 0.4)[1])) for i in range(8)]
    assert len(set(seen)) > 2
