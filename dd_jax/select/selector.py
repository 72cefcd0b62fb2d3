"""What every selector is: a look at each real image, and a rule that chooses by it in one group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import rows_of_classes
from dd_jax.errors import ConfigError, NonFiniteError
from dd_jax.select.budget import Budget, counts_of
from dd_jax.select.memory import Held, Memory, Sizes, planned
from dd_jax.types import PyTree, RealData

_SCORE, _CHOOSE = range(2)


class Chosen(NamedTuple):
    """Real images that were chosen.

    Attributes:
      rows: [M] int32 in the order of choice; of a choice by class, class after class.
      weights: [M] float32, at least 0: how much each counts in a training; 1 where the selector
        does not weigh.
    """

    rows: jax.Array
    weights: jax.Array


class Selector(NamedTuple):
    """How real images are chosen: a pure function of the data, of artefacts and of a key.

    The choice is made in groups, which are the classes, or the whole set. `choose` sees one group
    and knows of no classes, so that a rule is written once for both. It never forms [N, N].

    Attributes:
      score: (data, have, key) -> what is known of each image: [N], or [N, P] features that a
        greedy choice goes by, or a pytree of such; float32, on the device or on the host.
      choose: (known [n, ...], valid [n] bool, count, key) -> `Chosen`, whose rows are places in
        this group. Rows that are not valid pad a group and may not be chosen; count is a Python
        int, at most the number of valid rows.
      needs: names of what `have` must hold: "features" [N, P] or "logits" [N, K] float32, or
        "gradients", "boundary", "dynamics" or "probed", see `gradients.LastLayer`,
        `boundary.Boundary`, `dynamics.Dynamics` and `archaeology.Probed`.
      drawn: whether the key matters. One that does not draw gives the same images in whatever
        order the set has them, but for ties.
      memory: what it holds, told before it runs; None where nobody has said.
      blocked: (rows) -> the same selector that goes by blocks of so many; None for one without.
    """

    score: Callable[[RealData, Mapping[str, Any], jax.Array], PyTree]
    choose: Callable[[PyTree, jax.Array, int, jax.Array], Chosen]
    needs: tuple[str, ...] = ()
    drawn: bool = False
    memory: Memory | None = None
    blocked: Callable[[int], Selector] | None = None


def select(
    selector: Selector,
    data: RealData,
    have: Mapping[str, Any],
    budget: Budget,
    *,
    key: jax.Array,
) -> Chosen:
    """The images that a selector chooses, class after class or out of the whole set.

    What is known of the images may be on the host: one group at a time goes to the device.

    Args:
      selector: see `Selector`.
      data: the real set, on the device or on the host.
      have: name -> what the selector needs.
      budget: how many.
      key: PRNG key.

    Returns:
      `Chosen`, NumPy arrays: as many rows as the budget says, no row twice.

    Raises:
      ConfigError: a budget that cannot be; something that is needed is not there.
      DataError: more images than there are, see `counts_of`.
      NonFiniteError: what is known of an image is not finite.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> from dd_jax.select.selectors import herding
      >>> data = from_arrays(np.zeros((4, 1, 1), np.uint8), [0, 1, 0, 1])
      >>> points = np.float32([[0], [5], [1], [9]])
      >>> select(herding(), data, {"features": points}, Budget(per_class=1),
      ...        key=jax.random.key(0)).rows.tolist()
      [0, 1]
    """
    counts = counts_of(budget, data)  # before anything is looked at
    missing = [name for name in selector.needs if name not in have]
    if missing:
        raise ConfigError(f"the selector needs {missing[0]}, and there are {sorted(have)}",
                          fix=f"pass have={{{missing[0]!r}: ...}}")
    known = selector.score(data, have, jax.random.fold_in(key, _SCORE))
    check_known(known, data)
    key, parts = jax.random.fold_in(key, _CHOOSE), []
    groups = _groups(data, budget)
    alike = len({len(rows) for rows in groups}) == 1
    for number, (rows, count) in enumerate(zip(groups, counts)):
        if count == 0:
            continue
        part, valid = _padded(known, rows, len(rows) if alike else _size(len(rows)))
        chosen = selector.choose(part, valid, int(count), jax.random.fold_in(key, number))
        parts.append((rows[np.asarray(chosen.rows)], np.asarray(chosen.weights)))
    rows, weights = (np.concatenate(part) for part in zip(*parts))
    return Chosen(rows.astype(np.int32), weights.astype(np.float32))


def sizes_of(data: RealData, budget: Budget, **looked: int) -> Sizes:
    """What the memory of a selection depends on.

    Args:
      data: the real set; only its labels are looked at.
      budget: how many are chosen.
      **looked: other fields of `Sizes`, such as the width of features.

    Raises:
      ConfigError, DataError: a budget that cannot be.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> data = from_arrays(np.zeros((6, 1, 1), np.uint8), [0, 0, 0, 0, 0, 1])
      >>> sizes_of(data, Budget(per_class=1)).group
      6
    """
    counts = counts_of(budget, data)
    held = [len(rows) for rows in _groups(data, budget)]
    group = max(held) if len(set(held)) == 1 else _size(max(held))
    return Sizes(len(data.labels), group, int(np.max(data.class_counts)), int(counts.max()),
                 data.spec.num_classes, **looked)


def within(selector: Selector, sizes: Sizes, bound: int) -> tuple[Selector, Held | None]:
    """A selector whose blocks keep a bound on the device's memory, and what it then holds.

    It chooses the same images.

    Args:
      selector: any.
      sizes: see `sizes_of`.
      bound: bytes.

    Returns:
      (the selector, what it holds); None where it has not said.

    Raises:
      ConfigError: not even blocks of one row keep the bound.
    """
    if selector.memory is None:
        return selector, None
    held = planned(selector.memory, sizes, bound)
    if selector.blocked is not None:
        [block] = held.blocks.values()
        selector = selector.blocked(block)
    return selector, held


def check_known(known: PyTree, data: RealData) -> None:
    """Refuses what is not one finite number, or row of numbers, for each image.

    Raises:
      ConfigError: arrays of another length.
      NonFiniteError: as said, with the first row.
    """
    total = data.labels.shape[0]
    for leaf in jax.tree.leaves(known):
        if leaf.ndim < 1 or leaf.shape[0] != total:
            raise ConfigError(f"what is known of the images has shape {leaf.shape}, expected "
                              f"{total} rows", fix="use what was computed from this data")
        fine = np.asarray(jnp.isfinite(leaf) if isinstance(leaf, jax.Array) else np.isfinite(leaf))
        if not fine.all():
            fine = fine.reshape(total, -1).all(axis=1)
            raise NonFiniteError(
                f"what is known of {int((~fine).sum())} of {total} images is not finite, the first "
                f"is row {int(np.argmin(fine))}",
                fix="lower the rate of the networks that look at them")


def _padded(known: PyTree, rows: np.ndarray, size: int) -> tuple[PyTree, jax.Array]:
    """What is known of one group, filled up to a size, and which rows of it are real."""
    places = rows[np.minimum(np.arange(size), len(rows) - 1)]
    return (jax.tree.map(lambda x: jnp.asarray(x[places]), known), jnp.arange(size) < len(rows))


def _groups(data: RealData, budget: Budget) -> list[np.ndarray]:
    """Rows of each group, in ascending order."""
    if budget.within == "set":
        return [np.arange(data.labels.shape[0])]
    return rows_of_classes(data)


def _size(count: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, ...: groups of many sizes share a few programs."""
    power = 1
    while power < count:
        if power % 2 == 0 and count <= power // 2 * 3:
            return power // 2 * 3
        power *= 2
    return power
