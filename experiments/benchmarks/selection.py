"""Selections beside the same choice in NumPy and coreax, and scores beside a loop in PyTorch.

Features are random directions about the means of ten classes, 60,000 x 512. Herding chooses out of
the whole set, so that coreax, which knows no classes, does the same; k-center and facility location
choose within classes. coreax's herding has a linear kernel: of rows of length 1 its rule is ours.

Scores are EL2N, GraNd of the last layer and the probability of the label that cartography goes by,
of 60,000 images after an epoch of training, in one pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import dd_jax as dd
from dd_jax import nets
from dd_jax.data import from_arrays, identity
from dd_jax.errors import ConfigError
from dd_jax.select import Budget, select, selectors
from dd_jax.select.dynamics import Recording
from experiments.benchmarks.timing import Options, Rival, race

IMAGES, FEATURES, CLASSES = 60_000, 512, 10


def features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """[N, P] float32 rows of length 1, and labels [N] in equal classes."""
    draw = np.random.default_rng(seed)
    labels = np.arange(IMAGES) % CLASSES
    means = draw.normal(size=(CLASSES, FEATURES))
    points = np.float32(means[labels] + draw.normal(size=(IMAGES, FEATURES)))
    return points / np.linalg.norm(points, axis=1, keepdims=True), labels


def plain_herding(points: np.ndarray, count: int) -> np.ndarray:
    """Rows in order; the rule written down as it is."""
    mean, total, left = points.mean(axis=0), 0, np.ones(len(points), bool)
    rows = []
    for i in range(count):
        far = np.linalg.norm((i + 1) * mean - total - points, axis=1)
        rows.append(int(np.argmin(np.where(left, far, np.inf))))
        total, left[rows[-1]] = total + points[rows[-1]], False
    return np.array(rows)


def plain_k_center(points: np.ndarray, count: int) -> np.ndarray:
    """Rows in order, the first one nearest to the mean."""
    rows = [int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))]
    nearest = np.linalg.norm(points - points[rows[0]], axis=1)
    while len(rows) < count:
        rows.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[rows[-1]], axis=1))
    return np.array(rows)


def plain_facility_location(points: np.ndarray, count: int) -> np.ndarray:
    """Rows in order, by lazy greedy on the matrix of all pairs."""
    likeness = (1 + points @ points.T) / 2
    covered, rows = np.zeros(len(points), np.float32), []
    heap = [(-gain, row) for row, gain in enumerate(likeness.sum(axis=1))]
    heapq.heapify(heap)
    while len(rows) < count:
        _, row = heapq.heappop(heap)
        gain = np.maximum(likeness[row] - covered, 0).sum()
        if heap and gain < -heap[0][0]:
            heapq.heappush(heap, (-gain, row))
            continue
        rows.append(row)
        covered = np.maximum(covered, likeness[row])
    return np.array(rows)


def by_class(choose: Callable, points: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Rows of a choice within each class."""
    groups = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    return np.concatenate([rows[choose(points[rows], count)] for rows in groups])


def coreax_herding(points: np.ndarray, count: int) -> np.ndarray:
    """Rows in order, by the package coreax."""
    try:
        import coreax
        from coreax.kernels import LinearKernel
        from coreax.solvers import KernelHerding
    except ImportError as error:
        raise ConfigError("the package coreax is missing",
                          fix="pip install coreax, or pass --only numpy,ours") from error
    solver = KernelHerding(coreset_size=count, kernel=LinearKernel(), block_size=1000)
    chosen, _ = solver.reduce(coreax.Data(jnp.asarray(points)))
    return np.asarray(chosen.unweighted_indices)


def ours(name: str, points: np.ndarray, labels: np.ndarray, budget: Budget) -> np.ndarray:
    """Rows in order, by the library."""
    data = from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels)
    return select(selectors.OF_FEATURES[name](), data, {"features": points}, budget,
                  key=jax.random.key(0)).rows


def choice(name: str, options: Options) -> dict[str, Any]:
    """One race of a choice, and how many rows of its result are those of the plain one."""
    points, labels = features()
    total = CLASSES * options.ipc
    if name == "herding":
        rivals = {"numpy": partial(plain_herding, points, total),
                  "coreax": partial(coreax_herding, points, total)}
        budget = Budget(total=total, within="set")
    else:
        plain = {"k_center": plain_k_center, "facility_location": plain_facility_location}[name]
        rivals = {"numpy": partial(by_class, plain, points, labels, options.ipc)}
        budget = Budget(per_class=options.ipc)
    rivals["ours"] = partial(ours, name, points, labels, budget)
    alike = int(np.sum(rivals["ours"]() == rivals["numpy"]()))
    return race(f"select_{name}_{total}", {key: Rival(fn, jit=False) for key, fn in rivals.items()},
                options, images=IMAGES, features=FEATURES, chosen=total, same_rows_as_numpy=alike)


def scores(options: Options) -> None:
    """An epoch of training and a look at all images, beside PyTorch."""
    from experiments.benchmarks import torch_scores

    data, width = dd.data.load("fashion_mnist").train, options.width or 32
    recording = Recording(nets.convnet(data.spec, width=width),
                          optax.sgd(0.1, momentum=0.9, nesterov=True), 256)
    keys, nothing = jax.random.key(0)[None], identity(data.spec.shape)
    train = recording.trainer(data, nothing)

    def epoch():
        return recording.look(train(recording.begin(keys), keys, 0), data, nothing)

    def look():
        return recording.look(recording.begin(keys), data, nothing)

    images, labels = np.asarray(data.images), np.asarray(data.labels)
    for name, rival, theirs in (
        ("look", look, torch_scores.looked), ("epoch_and_look", epoch, torch_scores.trained),
    ):
        race(f"select_scores_{name}", {
            "torch": Rival(partial(theirs, images, labels, width), jit=False),
            "ours": Rival(rival, jit=False)}, options, width=width, images=len(labels))
