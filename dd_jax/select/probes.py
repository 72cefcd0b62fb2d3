"""Probes: suites of images of a known kind, planted in a training set before a training.

  typical         the easiest images of an earlier training, by how often their label was right
  atypical        the hardest ones
  random_outputs  the label is another one, drawn
  corrupted       Gaussian noise is added to the pixels
  random_inputs   pixels are noise, and the label is drawn

A probe takes the place of the image that it is made from, so that no image is there twice with two
labels, and what is said of its row afterwards is said of the probe.

Source: Siddiqui et al., Metadata Archaeology, ICLR 2023.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data.arrays import class_table
from dd_jax.errors import DataError
from dd_jax.select.dynamic_scores import correctness
from dd_jax.select.dynamics import Dynamics
from dd_jax.types import RealData

SUITES = ("typical", "atypical", "random_outputs", "corrupted", "random_inputs")
CHANGED = SUITES[2:]  # whose images are no longer what they were
NONE = -1
_PLACES, _HALVES, _LABELS, _NOISE, _PIXELS, _DRAWN = range(6)


class Probes(NamedTuple):
    """Which images of N are probes.

    Attributes:
      suite: places in `SUITES`, [N] int32; -1 for an image that is none.
      fitted: of a suite's probes the half that a classifier goes by, [N] bool; the other half
        checks it.
    """

    suite: Any
    fitted: Any


def suite_size(data: RealData, wanted: int, suites: int) -> int:
    """Probes of each half of a suite: so many, or as many as leave half of the images alone.

    Raises:
      DataError: not even one.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> suite_size(from_arrays(np.zeros((40, 1, 1), np.uint8), [0, 1] * 20), 250, 4)
      2
    """
    size = min(wanted, len(data.labels) // (4 * suites))
    if size == 0:
        raise DataError(f"{data.spec.name} has {len(data.labels)} images, expected at least "
                        f"{4 * suites} for {suites} suites of probes", fix="give more images")
    return size


def chosen_probes(seen: Dynamics, size: int, suites: int, key: jax.Array) -> Probes:
    """Which images become probes.

    Args:
      seen: of the earlier training.
      size: of each half of a suite.
      suites: how many of `SUITES` there are.
      key: draws the images that are changed, and the halves.

    Returns:
      `Probes`, NumPy.
    """
    hard = np.argsort(correctness(seen), kind="stable")
    rest = np.asarray(jax.random.permutation(jax.random.fold_in(key, _PLACES),
                                             hard[2 * size : -2 * size]))
    rows = [hard[: 2 * size], hard[-2 * size :], *np.split(rest, 2 * size * np.arange(
        1, suites - 1))][:suites]
    suite, fitted = np.full(len(hard), NONE, np.int32), np.zeros(len(hard), bool)
    for number, places in enumerate(rows):
        half = jax.random.permutation(
            jax.random.fold_in(jax.random.fold_in(key, _HALVES), number), places)[:size]
        suite[places], fitted[np.asarray(half)] = number, True
    return Probes(suite, fitted)


def planted(data: RealData, probes: Probes, key: jax.Array, *, noise: float) -> RealData:
    """The training set in which probes are what their suite says.

    Images on the host are copied.

    Args:
      data: the real set, uint8 or float32 in [0, 1].
      probes: which images.
      key: of what is drawn.
      noise: standard deviation of what is added to corrupted pixels, which are in [0, 1] there and
        stay there.

    Returns:
      `RealData` of the same rows and classes; a class may have other rows.
    """
    rows = [np.flatnonzero(probes.suite == number) for number in range(len(SUITES))]
    labels, classes = np.array(data.labels), data.spec.num_classes

    def key_of(consumer):
        return jax.random.fold_in(key, consumer)

    other = rows[SUITES.index("random_outputs")]
    labels[other] += np.asarray(jax.random.randint(key_of(_LABELS), other.shape, 1, classes))
    labels[other] %= classes
    fresh = rows[SUITES.index("random_inputs")]
    labels[fresh] = jax.random.randint(key_of(_DRAWN), fresh.shape, 0, classes)
    spoilt = rows[SUITES.index("corrupted")]
    top = 255.0 if data.images.dtype == np.uint8 else 1.0
    added = noise * jax.random.normal(key_of(_NOISE), (len(spoilt), *data.spec.shape))
    pixels = jnp.concatenate([
        jnp.asarray(data.images[spoilt], jnp.float32) / top + added,
        jax.random.normal(key_of(_PIXELS), (len(fresh), *data.spec.shape))])
    pixels = jnp.clip(pixels, 0, 1) * top
    pixels = (jnp.round(pixels) if top > 1 else pixels).astype(data.images.dtype)
    table, counts = class_table(labels, classes)
    return dataclasses.replace(
        data, images=_with(data.images, np.concatenate([spoilt, fresh]), pixels),
        labels=jnp.asarray(labels), class_rows=jnp.asarray(table), class_counts=jnp.asarray(counts))


def _with(images: Any, rows: np.ndarray, pixels: jax.Array) -> Any:
    """The images with others in some rows, where they are."""
    if isinstance(images, jax.Array):
        return images.at[rows].set(pixels)
    images = np.array(images)
    images[rows] = pixels
    return images
