"""What a set is compared with, made once: networks trained on random images and on all of them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from dd_jax.backend import as_key
from dd_jax.data import Normaliser, fingerprint
from dd_jax.errors import DDJaxError
from dd_jax.evaluate.evaluate import Evaluation, evaluate_full, evaluate_random
from dd_jax.evaluate.protocol import Protocol
from dd_jax.evaluate.random_images import Budget
from dd_jax.labels.supervision import Supervision
from dd_jax.store.artefacts import Artefact, damaged
from dd_jax.store.atomic import write_atomically
from dd_jax.store.envelope import header_hash, read_json_file, sealed
from dd_jax.store.trajectories import normaliser_digest
from dd_jax.synthetic import Labels
from dd_jax.types import RealData, Split

_FILE = "accuracies.json"
_SAID = ("name", "seeds", "read_out")
_MOST_SECONDS = 1e12


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
                  label_scale=labels.scale, seeds=seeds, key=as_key(seed))
    return _baseline("full_accuracy", data, common, seed, lambda: evaluate_full(data, **common),
                     without=("plan", "start_seed"))


def random_baseline(
    data: Split, *, protocol: Protocol, normaliser: Normaliser, labels: Labels, ipc: Budget,
    seed: int, seeds: int | None = None, shown: int | None = None,
    supervision: Supervision | None = None, told: Mapping[str, Any] = MappingProxyType({}),
) -> Artefact:
    """Networks trained on random real images, as an artefact that opens as an `Evaluation`.

    Args:
      data: the real set.
      protocol, normaliser, labels, ipc, shown: as for `evaluate_random`.
      seed: of the networks and of the images.
      seeds: how many networks; the protocol's number by default.
      supervision: what they are told in the place of hard labels.
      told: JSON-able; what tells this supervision from others, such as addresses of teachers.
    """
    common = dict(protocol=protocol, normaliser=normaliser, label_kind=labels.kind,
                  label_scale=labels.scale, ipc=ipc, shown=shown,
                  seeds=seeds or protocol.seeds, key=as_key(seed))
    return _baseline("random_accuracy", data, common, seed,
                     lambda: evaluate_random(data, supervision=supervision, **common),
                     without=("full",), told=told)


def _baseline(
    kind: str, data: Split, common: dict[str, Any], seed: int, run: Callable[[], Evaluation], *,
    without: tuple[str, ...], told: Mapping[str, Any] = MappingProxyType({}),
) -> Artefact:
    settings = {name: value for name, value in common.items() if name != "key"}
    # What networks are trained by, and not what is said of them: methods share their baselines.
    left_out = (*_SAID, *without)
    protocol = {name: part for name, part in common["protocol"].plain().items()
                if name not in left_out}
    settings |= {"protocol": protocol, "normaliser": normaliser_digest(common["normaliser"]),
                 "test": fingerprint(data.test)}
    settings |= {"told": dict(told)} if told else {}

    def make(train: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        found = run()
        values = {"accuracies": found.accuracies.tolist(), "seconds": found.seconds}
        write_atomically(folder / _FILE, lambda file: file.write(sealed(values)))

    return Artefact(kind, settings, make, _open, seed=seed)


def _open(folder: pathlib.Path) -> Evaluation:
    try:
        found = read_json_file(folder / _FILE, _FILE, fix="make it again")
        if found.get("sha256") != header_hash(found):
            raise ValueError("it does not match its own hash")
        values, seconds = np.asarray(found["accuracies"], np.float64), float(found["seconds"])
        if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("its accuracies are no shares of the test images")
        if not 0 <= seconds < _MOST_SECONDS:
            raise ValueError("its seconds are no time")
        return Evaluation(values, float(values.mean()), float(values.std()), seconds)
    except (OSError, ValueError, KeyError, TypeError, DDJaxError) as error:
        raise damaged(folder, f"its file {_FILE} cannot be read ({error})") from error
