"""Pairs of training and test sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from dd_jax.data.arrays import from_arrays
from dd_jax.errors import ConfigError, DataError
from dd_jax.types import RealData, Split


def split_of(train: RealData, test: RealData) -> Split:
    """Pairs two sets after checking that they describe the same task.

    Args:
      train: training set.
      test: held-out set of the same specification.

    Returns:
      `Split`.

    Raises:
      DataError: names the first field in which the specifications differ.

    Example:
      >>> part = from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1])
      >>> split_of(part, part).test.spec.num_classes
      2
    """
    for field in ("shape", "num_classes", "class_names", "name"):
        ours, theirs = getattr(train.spec, field), getattr(test.spec, field)
        if ours != theirs:
            raise DataError(
                f"train and test differ in {field}: {_short(ours)} and {_short(theirs)}",
                fix="build both with the same name, num_classes, class_names and image shape",
            )
    return Split(train, test)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def split_from_arrays(
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    *,
    name: str = "custom",
    num_classes: Optional[int] = None,
    class_names: Optional[Sequence[str]] = None,
    device: bool = True,
) -> Split:
    """Builds both parts; the training part sets the number of classes.

    Args:
      train: (images [N, H, W, C], labels [N]).
      test: (images [n, H, W, C], labels [n]); may lack classes.
      name: of the set.
      num_classes: K, or None.
      class_names: K names, or None.
      device: as for `from_arrays`.

    Returns:
      `Split`.

    Raises:
      DataError, ConfigError: as `from_arrays` and `split_of`.

    Example:
      >>> pair = np.zeros((2, 1, 1), np.uint8), np.array([0, 1])
      >>> split_from_arrays(pair, pair).train.spec.shape
      (1, 1, 1)
    """
    first = from_arrays(
        *train, name=name, num_classes=num_classes, class_names=class_names, device=device
    )
    second = from_arrays(
        *test,
        name=name,
        num_classes=first.spec.num_classes,
        class_names=first.spec.class_names,
        allow_missing=True,
        device=device,
    )
    return split_of(first, second)


def stratified_rows(
    labels: np.ndarray, *, test_fraction: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Seeded split of rows that keeps the class proportions.

    Each class gives round(test_fraction * size) rows to the test part, at least one where it has
    two or more; a class with one row keeps it for training.

    Args:
      labels: [N] integers.
      test_fraction: strictly between 0 and 1.
      seed: of the shuffle.

    Returns:
      (train rows, test rows), both sorted int64.

    Raises:
      ConfigError: the fraction is not strictly between 0 and 1.
      DataError: no class has two rows, or there is none at all.

    Example:
      >>> train, test = stratified_rows(np.array([0, 0, 0, 1, 1]), test_fraction=0.4)
      >>> len(train), len(test)
      (3, 2)
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(
            f"test_fraction is {test_fraction!r}, expected a number between 0 and 1",
            fix="pass for example test_fraction=0.2",
        )
    if not len(labels):
        raise DataError("there is no image, so no test part can be taken",
                        fix="give at least two images of one class")
    train, test = [], []
    # Seeded by position, not by value: labels are only validated afterwards and may be anything.
    for position, label in enumerate(np.unique(labels)):
        rows = np.flatnonzero(labels == label)
        order = np.random.default_rng([int(seed), position]).permutation(rows)
        held = min(max(1, round(test_fraction * len(rows))), len(rows) - 1)
        test.append(order[:held])
        train.append(order[held:])
    held_out = np.sort(np.concatenate(test))
    if not len(held_out):
        raise DataError(
            "no class has two images, so no test part can be taken",
            fix="give the test images separately",
        )
    return np.sort(np.concatenate(train)), held_out
