"""What a recipe's arrays become in the set that is saved."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import dd_jax as dd
from dd_jax.synthetic import Labels
from dd_jax.types import SyntheticSet


@pytest.mark.parametrize("kind,labels,found", [
    ("classes", np.array([[0.2, 0.8], [0.6, 0.4]]), np.int32([1, 0])),
    ("classes", np.array([1, 0]), np.int32([1, 0])),
    ("one_hot", np.array([[0, 1], [1, 0]]), np.float32([[0, 1], [1, 0]])),
])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_dtypes(toy, tiny_recipe, tmp_path, kind, labels, found, dtype):
    recipe = dataclasses.replace(tiny_recipe("dm"), labels=Labels(kind))
    images = np.zeros((2, *toy.spec.shape), dtype)
    made = dd.distill.package(recipe, SyntheticSet(images, labels, weights=np.ones(2)), toy)
    assert made.synthetic.labels.dtype == found.dtype
    np.testing.assert_array_equal(made.synthetic.labels, found)
    assert made.synthetic.images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    again = dd.store.load(dd.store.save(tmp_path / "a", made))
    assert again.label_kind == kind and again.synthetic.weights.dtype == np.float32


def test_a_run_ends_with_class_numbers(toy, tiny_recipe):
    recipe = dataclasses.replace(tiny_recipe("dm", steps=2), labels=Labels("classes"))
    made = dd.distill.distill(recipe, toy, show_progress=False)
    assert made.synthetic.labels.tolist() == [0, 1] and made.label_kind == "classes"
    staged = dd.distill.progressive(recipe, toy, stages=2, show_progress=False)
    assert staged.synthetic.labels.tolist() == [0, 0, 1, 1]
