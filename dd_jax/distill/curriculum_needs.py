"""The artefact of a curriculum: real images that joined a distilled set round by round.

Each round is a file of its own, so that a curriculum that was killed goes on after its last whole
round.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dd_jax.backend import own_dtypes
from dd_jax.data import Normaliser, normalise, rows_of_classes
from dd_jax.distill.needs import architecture
from dd_jax.run.stop import StopSignals
from dd_jax.select import Chosen
from dd_jax.select.curriculum import NONE, Filter, easiest, in_model_space
from dd_jax.select.dynamic_scores import SCORES
from dd_jax.select.looks import network_logits
from dd_jax.store.arrays import read_arrays, write_arrays
from dd_jax.store.artefacts import Artefact
from dd_jax.types import RealData


class Coarse(NamedTuple):
    """The images that a curriculum begins with, of a distilled set.

    Attributes:
      images: [M, H, W, C] float32 in [0, 1], or beyond it where they were learned so.
      labels: [M] int32.
    """

    images: Any
    labels: Any


def first_images(coarse: Coarse | Chosen, data: RealData, normaliser: Normaliser) -> Any:
    """What a curriculum begins with, in model space, where the images of the data are."""
    if isinstance(coarse, Chosen):
        return in_model_space(data, np.asarray(coarse.rows), normaliser)
    images = normalise(normaliser, coarse.images)
    return np.asarray(images) if isinstance(data.images, np.ndarray) else images


def first_labels(coarse: Coarse | Chosen, labels: np.ndarray) -> np.ndarray:
    """The classes of what a curriculum begins with, among real images of these labels."""
    return labels[np.asarray(coarse.rows)] if isinstance(coarse, Chosen) else coarse.labels


def curriculum(
    by: Filter, data: RealData, *, sizes: Sequence[int], difficulty: str,
    needs: Mapping[str, Artefact], settings: Mapping[str, Any], seed: int = 0,
    block: int | None = None,
) -> Artefact:
    """The real images that join a distilled set in rounds, see `select.curriculum`.

    Args:
      by: how the network of a round is trained.
      data: the real set.
      sizes: images per class that each round adds.
      difficulty: a name in `select.dynamic_scores.SCORES`.
      needs: "normaliser"; "teacher", variables of `by.network`; "logits" of all real images by it;
        "dynamics"; and "coarse", a `Coarse` or the `Chosen` that the set begins with.
      settings: JSON-able; what of `by` shapes it, beside architecture, epochs and temperature.
      seed: of the networks.
      block: images that are looked at together, no part of what it is.

    Returns:
      An `Artefact` that opens as rows [K, sum of sizes] int32 in the order of choice, -1 where a
      class had too few that the teacher gets right and the network wrong.
    """
    files = [f"round_{i:02d}.safetensors" for i in range(len(sizes))]
    classes = data.spec.num_classes

    @own_dtypes()
    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        labels, normaliser = np.asarray(data.labels), have["normaliser"]
        learned = np.argmax(have["logits"], axis=1) == labels
        hard = np.asarray(SCORES[difficulty][0](have["dynamics"]))
        begun = first_images(have["coarse"], data, normaliser)
        kinds = first_labels(have["coarse"], labels)
        taken = np.zeros(len(labels), bool)
        if isinstance(have["coarse"], Chosen):
            taken[np.asarray(have["coarse"].rows)] = True
        rows = np.zeros(0, np.int32)
        with StopSignals("stopping after this round") as stop:
            for i, (name, size) in enumerate(zip(files, sizes)):
                if not (folder / name).exists():
                    stop.check(f"after {i} of {len(sizes)} rounds of a curriculum, which are kept")
                    images = [begun, in_model_space(data, rows, normaliser)]
                    join = np if isinstance(data.images, np.ndarray) else jax.numpy
                    network = by.train(
                        join.concatenate(images), np.concatenate([kinds, labels[rows]]), classes,
                        have["teacher"], jax.random.fold_in(key, i))
                    said = network_logits(by.network, network, data, normaliser, block=block)
                    able = learned & (said.argmax(axis=1) != labels) & ~taken
                    added = easiest(able, hard, rows_of_classes(data), size)
                    write_arrays(folder / name, added, {"kind": "curriculum"})
                added = _read(folder / name, classes, size)
                added = added[added != NONE]
                rows, taken[added] = np.concatenate([rows, added]), True

    def opened(folder: pathlib.Path) -> np.ndarray:
        parts = [_read(folder / name, classes, size) for name, size in zip(files, sizes)]
        return np.concatenate(parts, axis=1)

    told = {**architecture(by.network), "epochs": by.epochs, "temperature": by.temperature,
            "sizes": list(sizes), "difficulty": difficulty}
    return Artefact("curriculum", {**told, **settings}, make, opened, needs=dict(needs), seed=seed,
                    stand_in=lambda: np.zeros((classes, sum(sizes)), np.int32))


def _read(path: pathlib.Path, classes: int, size: int) -> np.ndarray:
    return np.asarray(read_arrays(path, jax.ShapeDtypeStruct((classes, size), np.int32)))
