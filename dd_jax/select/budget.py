"""How many real images a selection may take, and of which classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dd_jax.errors import ConfigError, DataError, require_whole, told, unknown
from dd_jax.types import RealData

WITHIN = ("class", "set")
SHORT = ("refuse", "fewer", "others")


class Budget(NamedTuple):
    """How many images are chosen; exactly one of the first three is given.

    Attributes:
      per_class: of each class.
      total: of all classes together, as even as can be: where K does not divide it, the largest
        classes have one more.
      share: of every class, in (0, 1]. Their sum is the rounded share of N; what rounding leaves
        over goes to the classes with the largest remainders.
      within: "class": each class chooses its own images; "set": all images compete for all places,
        and classes may end with any number.
      short: what happens where a class has fewer images than it is asked for. "refuse": an error;
        "fewer": it gives all that it has, and the set is smaller; "others": the missing places go
        to the other classes, evenly.
    """

    per_class: int | None = None
    total: int | None = None
    share: float | None = None
    within: str = "class"
    short: str = "refuse"


def check_budget(budget: Budget) -> None:
    """Refuses a budget that no data could meet.

    Raises:
      ConfigError: not exactly one amount, or one that cannot be; an unknown name.

    Example:
      >>> check_budget(Budget(share=1.5))
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: share is 1.5, expected a number above 0 and at most 1; ...
    """
    for name, value, valid in (("within", budget.within, WITHIN), ("short", budget.short, SHORT)):
        if value not in valid:
            raise unknown(name, value, valid)
    given = [name for name in ("per_class", "total", "share") if getattr(budget, name) is not None]
    if len(given) != 1:
        raise ConfigError(f"the budget gives {' and '.join(given) or 'no amount'}, expected one of "
                          "per_class, total and share", fix="pass per_class=10")
    if given != ["share"]:
        require_whole(given[0], getattr(budget, given[0]), example=10)
    elif (isinstance(budget.share, bool) or not isinstance(budget.share, (int, float))
          or not 0 < budget.share <= 1):
        raise ConfigError(f"share is {told(budget.share)}, expected a number above 0 and at most 1",
                          fix="pass share=0.1")


def counts_of(budget: Budget, data: RealData) -> np.ndarray:
    """How many images each class chooses; one number for all where classes compete.

    Args:
      budget: see `Budget`.
      data: the real set; only its labels are looked at.

    Returns:
      [K] int64, or [1] for within="set".

    Raises:
      ConfigError: see `check_budget`.
      DataError: more images than the set has; a class with too few where short is "refuse".

    Example:
      >>> from dd_jax.data import from_arrays
      >>> data = from_arrays(np.zeros((5, 1, 1), np.uint8), [0, 0, 0, 0, 1])
      >>> counts_of(Budget(per_class=2, short="others"), data).tolist()
      [3, 1]
    """
    check_budget(budget)
    sizes = np.asarray(data.class_counts, np.int64)
    wanted = _wanted(budget, sizes)
    if budget.short != "fewer" and wanted.sum() > sizes.sum():
        raise DataError(f"{data.spec.name} has {sizes.sum()} images, and {wanted.sum()} are asked "
                        "for", fix="ask for fewer")
    if budget.within == "set":
        return np.minimum(wanted.sum(), sizes.sum())[None]
    if budget.short == "refuse" and (wanted > sizes).any():
        worst = int(np.argmax(wanted - sizes))
        raise DataError(
            f"{data.spec.name}: class {worst} ({data.spec.class_names[worst]}) has {sizes[worst]} "
            f"images, expected at least {wanted[worst]}",
            fix="ask for fewer, or pass short='fewer' or short='others'")
    counts = np.minimum(wanted, sizes)
    return counts if budget.short != "others" else _filled(counts, sizes, wanted.sum())


def _wanted(budget: Budget, sizes: np.ndarray) -> np.ndarray:
    """[K], whatever classes have."""
    if budget.per_class is not None:
        return np.full(len(sizes), budget.per_class, np.int64)
    if budget.total is not None:
        counts = np.full(len(sizes), budget.total // len(sizes), np.int64)
        largest = np.argsort(-sizes, kind="stable")
        counts[largest[: budget.total % len(sizes)]] += 1
        return counts
    exact = np.round(budget.share * sizes, 9)
    counts = np.floor(exact).astype(np.int64)
    missing = max(1, round(budget.share * int(sizes.sum()))) - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def _filled(counts: np.ndarray, sizes: np.ndarray, total: int) -> np.ndarray:
    """Counts raised to a total, evenly among the classes that have more; the first ones first."""
    counts = counts.copy()
    while counts.sum() < total:
        able = np.flatnonzero(counts < sizes)
        missing = total - counts.sum()
        able = able[np.argsort(counts[able], kind="stable")][:missing]
        more = max(1, missing // len(able))
        counts[able] += np.minimum(more, sizes[able] - counts[able])
    return counts
