"""A toy data set as a file, which experiments load as the command line does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.laws import members


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    toy = members.toy_data()
    images, labels = np.asarray(toy.images), np.asarray(toy.labels)
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    return path
