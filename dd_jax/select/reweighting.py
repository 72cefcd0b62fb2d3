"""Weights of real images, learned on a coreset and handed on to the whole set.

A Meta-Weight-Net is trained on the coreset alone, part of which judges; the weight of any other
image is that of the nearest image of its class in the coreset. Weights have no scale of their own,
so their mean is made 1.

Source: Jafari et al., The Power of Few: Accelerating and Enhancing Data Reweighting with Coreset
Selection, ICASSP 2024.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import in_chunks, own_dtypes
from dd_jax.data import Normaliser, gather, normalise
from dd_jax.errors import ConfigError, DataError, NonFiniteError
from dd_jax.select.meta_weights import MetaWeights
from dd_jax.select.selector import Chosen
from dd_jax.train import random_batches
from dd_jax.types import RealData

_MOST_NUMBERS = 2**22  # of a block's distances
_SPLIT, _BEGIN, _STEPS = range(3)
_ROWS, _META = range(2)


def meta_size(total: int) -> int:
    """How many of a coreset's images judge: max(2 %, half of them up to 100, 1).

    Example:
      >>> [meta_size(total) for total in (1, 20, 1000, 18_000)]
      [1, 10, 100, 360]
    """
    return max(int(0.02 * total), max(min(100, int(0.5 * total)), 1))


def meta_split(labels: np.ndarray, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Places of a coreset's images that judge, and of those that are trained on.

    Classes judge evenly, by random images; each keeps at least one image to be trained on. Where
    classes have one image each, the coreset judges itself.

    Args:
      labels: [M] classes of the coreset's images.
      key: PRNG key.

    Returns:
      (at most `meta_size` places, the others), int32 in ascending order, or all places twice.

    Example:
      >>> judging, others = meta_split(np.array([0, 0, 0, 0, 1, 1]), jax.random.key(0))
      >>> len(judging), len(others), np.array([0, 0, 0, 0, 1, 1])[judging].tolist()
      (3, 3, [0, 0, 1])
    """
    total = len(labels)
    order = np.asarray(jax.random.permutation(key, total))
    turn = np.zeros(total, np.int64)  # how many of its class come before it
    last = np.zeros(total, bool)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        turn[own], last[own[-1]] = np.arange(len(own)), True
    able = order[~last[order]]
    judging = np.sort(able[np.argsort(turn[able], kind="stable")][: meta_size(total)])
    if not len(judging):
        judging = others = np.arange(total)
    else:
        others = np.setdiff1d(np.arange(total), judging)
    return judging.astype(np.int32), others.astype(np.int32)


@own_dtypes()
def learned_weights(
    by: MetaWeights, data: RealData, rows: np.ndarray, normaliser: Normaliser, *, steps: int,
    key: jax.Array,
) -> np.ndarray:
    """What a Meta-Weight-Net that was trained on a coreset alone says of the coreset's images.

    Args:
      by: how it is trained.
      data: the real set, on the device or on the host.
      rows: [M] of the coreset.
      normaliser: from stored images to model space.
      steps: of the training.
      key: PRNG key.

    Returns:
      [M] float32, of mean 1.

    Raises:
      NonFiniteError: the network diverged.
    """
    images, labels = (jnp.asarray(part) for part in gather(data, rows))
    judging, others = (jnp.asarray(part) for part in meta_split(
        np.asarray(labels), jax.random.fold_in(key, _SPLIT)))
    classes = data.spec.num_classes

    @jax.jit
    def learn(images, labels, normaliser, key):
        def take(places):
            return (normalise(normaliser, images[places]),
                    jax.nn.one_hot(labels[places], classes))

        def some(places, key):
            drawn, _ = random_batches(len(places), by.batch_size, 1).rows((), key, 0)
            return take(places if drawn is None else places[drawn])

        def step(i, state):
            at = jax.random.fold_in(jax.random.fold_in(key, _STEPS), i)
            return by.step(state, some(others, jax.random.fold_in(at, _ROWS)),
                           some(judging, jax.random.fold_in(at, _META)))

        state = jax.lax.fori_loop(0, steps, step, by.begin(jax.random.fold_in(key, _BEGIN)))
        return in_chunks(lambda places: by.judged(state, *take(places)), jnp.arange(len(labels)))

    weights, losses = learn(images, labels, normaliser, key)
    if not np.isfinite(losses).all():
        raise NonFiniteError(f"the network that learns weights diverged within {steps} steps",
                             fix="lower its rate")
    return of_mean_one(weights)


def of_mean_one(weights: np.ndarray) -> np.ndarray:
    """Weights [M] divided by their mean, float32.

    Raises:
      ConfigError: one that is negative or not finite, or all are 0.

    Example:
      >>> of_mean_one(np.float32([0.25, 0.75])).tolist()
      [0.5, 1.5]
    """
    weights = np.asarray(weights, np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ConfigError("weights have to be finite, at least 0, and not all of them 0",
                          fix="lower the rate of the networks that learn them")
    return np.float32(weights / weights.mean())


def whole_set_weights(points: np.ndarray, labels: np.ndarray, chosen: Chosen) -> np.ndarray:
    """A weight for every real image: that of the coreset's image of its class nearest to it.

    They are for `train.fit(weights=)`, or for real batches. Block by block on the host, in float64.

    Args:
      points: [N, P] features of all real images, those that the coreset was chosen by.
      labels: [N] classes.
      chosen: the coreset with its weights.

    Returns:
      [N] float32, of mean 1. Of equally near images the one that was chosen first counts.

    Raises:
      ConfigError: another number of points than of labels; weights that cannot be.
      DataError: a class without an image in the coreset.

    Example:
      >>> points, labels = np.float32([[0], [1], [9], [5]]), np.array([0, 0, 0, 1])
      >>> coreset = Chosen(np.array([0, 2, 3]), np.float32([1, 4, 2]))
      >>> whole_set_weights(points, labels, coreset).tolist()
      [0.5, 0.5, 2.0, 1.0]
    """
    labels, rows = np.asarray(labels), np.asarray(chosen.rows)
    if len(points) != len(labels):
        raise ConfigError(f"there are {len(points)} rows of features and {len(labels)} labels",
                          fix="pass those of all real images")
    weights = np.zeros(len(labels), np.float64)
    for label in np.unique(labels):
        own, core = np.flatnonzero(labels == label), np.flatnonzero(labels[rows] == label)
        if not len(core):
            raise DataError(f"the coreset has no image of class {label}, whose weight the others "
                            "of the class could take", fix="choose it within classes")
        nearest = _nearest(points, own, rows[core])
        weights[own] = np.asarray(chosen.weights, np.float64)[core[nearest]]
    return of_mean_one(weights)


def _nearest(points: np.ndarray, own: np.ndarray, core: np.ndarray) -> np.ndarray:
    """For each row of `own` the place in `core` of the nearest of those rows."""
    centres = np.asarray(points[core], np.float64)
    middle = centres.mean(axis=0)  # near which little is lost in the difference of squares
    centres = centres - middle
    sizes, block = (centres**2).sum(axis=1), max(1, _MOST_NUMBERS // len(core))
    found = [np.argmin(sizes - 2 * (np.asarray(points[part], np.float64) - middle) @ centres.T,
                       axis=1)
             for part in np.split(own, range(block, len(own), block))]
    found, place = np.concatenate(found), np.full(points.shape[0], -1)
    place[core] = np.arange(len(core))
    return np.where(place[own] >= 0, place[own], found)  # an image of the coreset is its own
