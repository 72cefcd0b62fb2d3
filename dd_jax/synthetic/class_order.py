"""Where on a grid each class goes, so that neighbours are alike.

Officially the distances of classes are those of their names in a text model (cosine distances of
CLIP's embeddings). Here the default is the distance of their mean images, which needs no such
model; any other matrix does as well, such as one made from a confusion matrix.

Source: Shul, Horwitz and Hoshen, Distilling Datasets Into Less Than One Image, 2024.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dd_jax.data import check_classes, gather, normalise, rows_of_classes
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import RealData

_CHUNK = 1024


def class_order(distances: Any, *, grid: tuple[int, int]) -> np.ndarray:
    """Fills a grid greedily along its anti-diagonals, each from the lower left upwards.

    The first cell takes class 0. Every other takes, of the classes that are left, that of the
    smallest sum of distances to the neighbours above and to the left, which are there already; of
    equal sums that of the smallest number.

    Args:
      distances: [K, K], finite; row the class to place, column its neighbour.
      grid: (rows, columns) with K cells.

    Returns:
      [rows, columns] int32, the class of each cell.

    Raises:
      ConfigError: a grid of another number of cells, or distances that are no finite matrix.

    Example:
      >>> places = np.array([0.0, 9.0, 1.0, 8.0])
      >>> class_order(np.abs(places[:, None] - places), grid=(2, 2)).tolist()
      [[0, 3], [2, 1]]
    """
    height, width = check_grid(grid)
    count = height * width
    try:
        distances = np.asarray(distances, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"distances are {str(distances)[:60]!r}, expected [{count}, {count}] "
                          "numbers", fix="pass mean_image_distances(data, normaliser) or another "
                          "such matrix") from error
    if distances.shape != (count, count) or not np.isfinite(distances).all():
        raise ConfigError(
            f"distances have shape {distances.shape}, expected [{count}, {count}] finite numbers "
            f"for a grid of {height}x{width}", fix="pass a grid with a cell for each class")
    order, left = np.zeros((height, width), np.int32), list(range(count))
    for diagonal in range(height + width - 1):
        for y in range(min(diagonal, height - 1), max(0, diagonal - width + 1) - 1, -1):
            x = diagonal - y
            placed = [order[y - 1, x]] * (y > 0) + [order[y, x - 1]] * (x > 0)
            nearest = int(np.argmin(distances[np.ix_(left, placed)].sum(axis=1)))
            order[y, x] = left.pop(nearest)
    return order


def mean_image_distances(data: RealData, normaliser: Normaliser) -> np.ndarray:
    """Euclidean distances between the mean images of the classes, in model space.

    Args:
      data: real set, on the device or the host; read once.
      normaliser: of the run.

    Returns:
      [K, K] float64, symmetric with a zero diagonal.

    Raises:
      DataError: an empty class.

    Example:
      >>> from dd_jax import data as dd_data
      >>> real = dd_data.from_arrays(np.array([0, 3, 255], np.uint8).reshape(3, 1, 1, 1), [0, 0, 1])
      >>> mean_image_distances(real, dd_data.identity((1, 1, 1))).round(3).tolist()
      [[0.0, 0.994], [0.994, 0.0]]
    """
    check_classes(data, at_least=1)
    means = []
    for rows in rows_of_classes(data):
        total = np.zeros(data.spec.shape)
        for start in range(0, len(rows), _CHUNK):
            images, _ = gather(data, rows[start : start + _CHUNK])
            total += np.asarray(normalise(normaliser, images), np.float64).sum(axis=0)
        means.append(total.ravel() / len(rows))
    means = np.stack(means)
    return np.stack([np.linalg.norm(means - mean, axis=1) for mean in means])


def check_grid(grid: Any) -> tuple[int, int]:
    """The two sides of a grid of classes.

    Raises:
      ConfigError: not two whole numbers of at least 1.

    Example:
      >>> check_grid([2, 5])
      (2, 5)
    """
    return two_sizes("class grid", grid, example=(2, 5))


def two_sizes(name: str, value: Any, *, example: tuple[int, int]) -> tuple[int, int]:
    """A pair (vertical, horizontal) of whole numbers of at least 1.

    Raises:
      ConfigError: anything else.

    Example:
      >>> two_sizes("poster", (30, 76), example=(30, 76))
      (30, 76)
    """
    pair = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else ()
    if len(pair) != 2:
        raise ConfigError(f"{name} is {value!r}, expected two sizes, vertical then horizontal",
                          fix=f"pass {example}")
    for side in pair:
        require_whole(f"a side of the {name}", side)
    return int(pair[0]), int(pair[1])


def class_grid(classes: int, rows: int | None = None) -> tuple[int, int]:
    """(rows, columns) of a grid that holds each class once.

    Args:
      classes: K.
      rows: of the grid; None for the most that are not above the columns.

    Raises:
      ConfigError: `rows` does not divide K.

    Example:
      >>> class_grid(10)
      (2, 5)
    """
    if rows is None:
        rows = max(n for n in range(1, math.isqrt(classes) + 1) if classes % n == 0)
    if classes % rows:
        raise ConfigError(f"grid_rows is {rows}, which does not divide {classes} classes",
                          fix="leave it out")
    return rows, classes // rows
