"""What a set is compared with, made once: networks trained on random images and on all of them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dd_jax.data import Normaliser, fingerprint
from dd_jax.errors import CheckpointError
from dd_jax.evaluate.evaluate import Evaluation, evaluate_full, evaluate_random
from dd_jax.evaluate.protocol import Protocol
from dd_jax.store.artefacts import Artefact
from dd_jax.store.atomic import write_atomically
from dd_jax.store.trajectories import normaliser_digest
from dd_jax.synthetic import Labels
from dd_jax.types import RealData, Split

_FILE = "accuracies.json"


def full_baseline(
    data: Split, *, protocol: Protocol, normaliser: Normaliser, labels: Labels, seed: int,
    seeds: int = 1,
) -> Artefact:
    """Networks trained on all real images, as an artefact that opens as an `Evaluation`.

    Args:
      data: the real set.
      protocol, normaliser, labels: as for `evaluate_full`.
      seed: of the networks.
      seeds: how many networks.
    """
    common = dict(protocol=protocol, normaliser=normaliser, label_kind=labels.kind,
                  label_scale=labels.scale, seeds=seeds, key=jax.random.key(seed))
    return _baseline("full_accuracy", data, common, seed, lambda: evaluate_full(data, **common))


def random_baseline(
    data: Split, *, protocol: Protocol, normaliser: Normaliser, labels: Labels, ipc: float,
    seed: int, seeds: int | None = None, shown: int | None = None,
) -> Artefact:
    """Networks trained on random real images, as an artefact that opens as an `Evaluation`.

    Args:
      data: the real set.
      protocol, normaliser, labels, ipc, shown: as for `evaluate_random`.
      seed: of the networks and of the images.
      seeds: how many networks; the protocol's number by default.
    """
    common = dict(protocol=protocol, normaliser=normaliser, label_kind=labels.kind,
                  label_scale=labels.scale, ipc=ipc, shown=shown,
                  seeds=seeds or protocol.seeds, key=jax.random.key(seed))
    return _baseline("random_accuracy", data, common, seed,
                     lambda: evaluate_random(data, **common))


def _baseline(
    kind: str, data: Split, common: dict[str, Any], seed: int, run: Callable[[], Evaluation]
) -> Artefact:
    settings = {name: value for name, value in common.items() if name != "key"}
    settings |= {"protocol": common["protocol"].plain(),
                 "normaliser": normaliser_digest(common["normaliser"]),
                 "test": fingerprint(data.test)}

    def make(train: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        found = run()
        text = json.dumps({"accuracies": found.accuracies.tolist(), "seconds": found.seconds})
        write_atomically(folder / _FILE, lambda file: file.write(text.encode()))

    return Artefact(kind, settings, make, _open, seed=seed)


def _open(folder: pathlib.Path) -> Evaluation:
    try:
        found = json.loads((folder / _FILE).read_text())
        values = np.asarray(found["accuracies"], np.float64)
        if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("no accuracies")
        return Evaluation(values, float(values.mean()), float(values.std()),
                          float(found["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"the artefact {folder} is damaged ({error})",
            fix=f"make it again: python -m dd_jax artefacts --store {folder.parent} "
                f"--remove {folder.name}") from error
