"""Weights and class numbers go with the images: sets are joined, mirrored, cut into stages."""

from __future__ import annotations

import numpy as np
import pytest

from dd_jax.synthetic import joined, stage_sets, with_mirrors
from dd_jax.types import SyntheticSet


def of(*weights, first=0):
    """Images that name themselves, of two classes."""
    numbers = np.arange(first, first + len(weights), dtype=np.float32)
    labels = np.repeat(np.arange(2, dtype=np.int32), len(weights) // 2)
    carried = None if weights[0] is None else np.array(weights, np.float32)
    return SyntheticSet(numbers.reshape(-1, 1, 1, 1), labels, weights=carried)


@pytest.mark.parametrize("one,two,weights", [
    (of(1, 2), of(3, 4), [1, 3, 2, 4]), (of(None, None), of(3, 4), [1, 3, 1, 4]),
    (of(1, 2), of(None, None), [1, 1, 2, 1]), (of(None, None), of(None, None), None)])
def test_joined_and_cut_again(one, two, weights):
    two = two._replace(images=two.images + 2)
    both = joined(one, two, 2)
    assert both.images.ravel().tolist() == [0, 2, 1, 3] and both.labels.tolist() == [0, 0, 1, 1]
    assert (None if weights is None else both.weights.tolist()) == weights
    early, late = stage_sets(both, 2, 2)
    assert early.images.ravel().tolist() == [0, 1] and early.labels.tolist() == [0, 1]
    assert late.images.ravel().tolist() == [0, 2, 1, 3]
    if weights is not None:
        assert early.weights.tolist() == [weights[0], weights[2]]
        assert late.weights.tolist() == weights


def test_mirrored():
    assert with_mirrors(of(1, 2)).weights.tolist() == [1, 1, 2, 2]
    assert with_mirrors(of(None, None)).weights is None
