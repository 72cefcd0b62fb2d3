"""Contrastive images: near ones by their features, of which a network says something else.

  score_i = 1/k sum_{j in the k nearest of i} KL(p_j | p_i)

with class probabilities p; or of each pair half of KL(p_j | p_i) + KL(p_i | p_j).

Source: Margatina et al., Active Learning by Acquiring Contrastive Examples, EMNLP 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dd_jax.data import rows_of_classes
from dd_jax.errors import require_whole, unknown
from dd_jax.select.memory import (
    NUMBER,
    SORTED,
    Bytes,
    Memory,
    Phase,
    Sizes,
    known_features,
    of_numbers,
)
from dd_jax.select.neighbours import nearest, neighbours_phase
from dd_jax.select.selector import Selector, check_known
from dd_jax.select.selectors import by_rule
from dd_jax.types import RealData

DIVERGENCES = ("neighbour", "symmetric")
AMONG = ("class", "set")
_MOST_NUMBERS = 2**22  # of the neighbours' probabilities in a block


def divergence(logits: np.ndarray, neighbours: np.ndarray, *, symmetric: bool = False):
    """The mean divergence of each image's class probabilities from those of its neighbours.

    Args:
      logits: [n, K].
      neighbours: [n, k] places.
      symmetric: the mean of both directions, instead of that from the image to the neighbour.

    Returns:
      [n] float64, at least 0.

    Example:
      >>> logits = np.log([[0.5, 0.5], [0.8, 0.2]])
      >>> divergence(logits, np.array([[1], [1]])).round(3).tolist()
      [0.193, 0.0]
    """
    logs = np.asarray(logits, np.float64)
    logs = logs - logs.max(axis=1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    shares, found = np.exp(logs), np.zeros(len(logs))
    block = max(1, _MOST_NUMBERS // (neighbours.shape[1] * logs.shape[1]))
    for start in range(0, len(logs), block):
        rows, others = slice(start, start + block), neighbours[start : start + block]
        far, weight = logs[others] - logs[rows, None], shares[others]
        if symmetric:
            weight = (weight - shares[rows, None]) / 2
        found[rows] = np.sum(weight * far, axis=2).mean(axis=1)
    return np.maximum(found, 0)


def cal(
    neighbours: int = 10, *, among: str = "class", towards: str = "neighbour", order: str = "top",
    block: int | None = None,
) -> Selector:
    """The selector of contrastive images.

    Args:
      neighbours: k; as many as there are where a class has fewer.
      among: neighbours are looked for in the image's own "class", or in the whole "set".
      towards: "neighbour", KL(p_j | p_i) as published, or "symmetric".
      order: "top" takes the most contrastive images.
      block: images whose distances are computed together; None: see `neighbours.block_of`.

    Raises:
      ConfigError: no neighbours; an unknown name.

    Example:
      >>> cal().needs
      ('features', 'logits')
    """
    require_whole("neighbours", neighbours, example=10)
    for name, value, valid in (("among", among, AMONG), ("towards", towards, DIVERGENCES)):
        if value not in valid:
            raise unknown(name, value, valid)

    def scored(data: RealData, have: Mapping[str, Any], key: jax.Array) -> np.ndarray:
        points, logits = np.asarray(have["features"]), np.asarray(have["logits"])
        check_known((points, logits), data)
        total = len(data.labels)
        groups = [np.arange(total)] if among == "set" else rows_of_classes(data)
        score = np.zeros(total, np.float32)
        for rows in filter(len, groups):
            count = min(neighbours, len(rows) - 1)
            if count:  # an image that is alone differs from nothing
                near = nearest(points[rows], points[rows], count, own=np.arange(len(rows)),
                               block=block)
                score[rows] = divergence(logits[rows], near, symmetric=towards == "symmetric")
        return score

    def host(sizes: Sizes) -> Bytes:  # logarithms, probabilities, and both of neighbours
        said = sizes.images * sizes.classes
        return {**known_features(sizes), "logits": NUMBER * said,
                "probabilities": 8 * (3 * said + 3 * min(_MOST_NUMBERS, neighbours * said))}

    distances = neighbours_phase(
        lambda sizes: sizes.images if among == "set" else sizes.largest, lambda sizes: sizes.width)
    return Selector(
        scored, by_rule(order), needs=("features", "logits"),
        memory=Memory(host, {"score": distances, "choice": Phase(of_numbers(SORTED))}),
        blocked=lambda block: cal(neighbours, among=among, towards=towards, order=order,
                                  block=block))
