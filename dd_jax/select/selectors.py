"""The selectors that there are, each a look and a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from dd_jax.data import rows_of_classes
from dd_jax.errors import unknown
from dd_jax.select import facility_location as locations
from dd_jax.select import greedy_choices, rules
from dd_jax.select.medoids import chunk_of, medoids
from dd_jax.select.memory import (
    NUMBER,
    SORTED,
    Bytes,
    Memory,
    Phase,
    Sizes,
    known_features,
    of_features,
    of_numbers,
    of_scores,
)
from dd_jax.select.selector import Selector
from dd_jax.types import RealData


def features_of(data: RealData, have: Mapping[str, Any], key: jax.Array) -> Any:
    """[N, P], the artefact "features" as it is."""
    return have["features"]


_GREEDY = Phase(of_features(6))  # squares, gains, what is left, places, and a product


def _of_features(
    choose: Callable, *, drawn: bool = False, phase: Phase = _GREEDY,
    blocked: Callable[[int], Selector] | None = None,
) -> Selector:
    return Selector(features_of, choose, needs=("features",), drawn=drawn,
                    memory=Memory(known_features, {"choice": phase}), blocked=blocked)


def by_rule(order: str) -> Callable:
    """The rule of that name in `rules.ORDERS`.

    Raises:
      ConfigError: an unknown name.
    """
    if order not in rules.ORDERS:
        raise unknown("order", order, rules.ORDERS)
    return rules.ORDERS[order]


def random() -> Selector:
    """Random images."""
    return Selector(lambda data, have, key: np.zeros(len(data.labels), np.float32),
                    rules.anything, drawn=True,
                    memory=of_scores(lambda sizes: {"scores": NUMBER * sizes.images}))


def herding() -> Selector:
    """The mean of the chosen follows the mean of all, see `greedy_choices.herding`."""
    return _of_features(greedy_choices.herding)


def k_center(first: str = "mean") -> Selector:
    """Each is the farthest from the chosen, see `greedy_choices.k_center`.

    Raises:
      ConfigError: `first` is neither "mean" nor "random".
    """
    if first not in ("mean", "random"):
        raise unknown("first image", first, ("mean", "random"))
    return _of_features(partial(greedy_choices.k_center, first=first), drawn=first == "random")


def k_means(iterations: int = 10, chunk: int | None = None) -> Selector:
    """Images nearest to the centres of clusters, see `medoids.medoids`."""
    def arrays(sizes: Sizes) -> Bytes:
        centres = 3 * NUMBER * sizes.count * sizes.width
        return {**of_features(4, copies=3)(sizes), "centres": centres}

    distances = Phase(arrays, row=lambda sizes: 2 * NUMBER * sizes.count,
                      block=lambda sizes: chunk_of(sizes.group, sizes.count))
    return _of_features(partial(medoids, iterations=iterations, chunk=chunk), drawn=True,
                        phase=distances, blocked=partial(k_means, iterations))


def facility_location(block: int | None = None) -> Selector:
    """Every image is like one of the chosen, see `facility_location.facility_location`."""
    candidates = Phase(of_features(8), row=lambda sizes: NUMBER * (2 * sizes.group + sizes.width),
                       block=lambda sizes: locations.block_of(sizes.group))
    return _of_features(partial(locations.facility_location, block=block), phase=candidates,
                        blocked=facility_location)


def graph_cut(weight: float = 1.0) -> Selector:
    """Like all and unlike the chosen, see `greedy_choices.graph_cut`."""
    return _of_features(partial(greedy_choices.graph_cut, weight=weight))


def moderate() -> Selector:
    """Images in the middle of the distances to the median of their class.

    Source: Xia et al., Moderate Coreset, ICLR 2023.
    """
    def host(sizes: Sizes) -> Bytes:  # of a class once more, and sorted
        return {**known_features(sizes), "class": 2 * NUMBER * sizes.group * sizes.width}

    return Selector(_far_from_median, rules.middle, needs=("features",),
                    memory=Memory(host, {"choice": Phase(of_numbers(SORTED))}))


def _far_from_median(data: RealData, have: Mapping[str, Any], key: jax.Array) -> np.ndarray:
    far = np.zeros(len(data.labels), np.float32)
    for rows in filter(len, rows_of_classes(data)):
        points = np.asarray(have["features"][rows])
        far[rows] = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return far


# Those that look at features only, which may be the pixels: any distillation can start from them.
OF_FEATURES: Mapping[str, Callable[[], Selector]] = {
    "herding": herding, "k_center": k_center, "k_means": k_means, "moderate": moderate,
    "facility_location": facility_location, "graph_cut": graph_cut,
}
