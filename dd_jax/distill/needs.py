"""The kinds of artefacts that recipes need: normalisers, teachers, banks, experts, clusterings.

Each is a declaration: what identifies it, and which pure function computes it. None of them knows
the method, the budget or the seed of the run that asks, so runs share them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.data import (
    NORMALISERS,
    Normaliser,
    from_tensors,
    identity,
    normalisers,
    to_tensors,
)
from dd_jax.errors import require_whole, unknown
from dd_jax.run.experts import check_trained, train_experts
from dd_jax.run.stop import StopSignals
from dd_jax.store.arrays import read_arrays, read_card, write_arrays
from dd_jax.store.artefacts import Artefact
from dd_jax.store.envelope import plain
from dd_jax.store.trajectories import Trajectories, normaliser_digest, open_trajectories
from dd_jax.store.trajectory_file import expert_name
from dd_jax.train.experts import flat_layout
from dd_jax.types import Network, PyTree, RealData

_ARRAYS = "arrays.safetensors"


def architecture(network: Network) -> dict[str, Any]:
    """What of a network is part of an artefact's identity: its name and its variables' shapes."""
    variables = jax.eval_shape(network.init, jax.random.key(0))
    told = {"network": network.name, "variables": plain(flat_layout(variables), "variables")}
    if "batch_stats" in variables:  # networks kept from when a step left a tenth of them are others
        told["running_statistics"] = "kept by nine tenths"
    return told


def arrays(
    kind: str,
    settings: Mapping[str, Any],
    compute: Callable[..., PyTree],
    like: Callable[[], PyTree],
    *,
    needs: Mapping[str, Artefact] = MappingProxyType({}),
    seed: int = 0,
    device: bool = True,
) -> Artefact:
    """An artefact that is one tree of arrays.

    Args:
      kind, settings, needs, seed: see `Artefact`.
      compute: (data, key, **needs) -> tree of arrays.
      like: () -> the tree's shapes and dtypes.
      device: whether it opens on the device; False: as NumPy arrays.
    """

    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        write_arrays(folder / _ARRAYS, compute(data, key, **have), {"kind": kind})

    def opened(folder: pathlib.Path) -> PyTree:
        found = read_arrays(folder / _ARRAYS, like())
        return jax.tree.map(jnp.asarray, found) if device else found

    return Artefact(kind, settings, make, opened, needs=dict(needs), seed=seed,
                    stand_in=lambda: _zeros(like()))


def _zeros(like: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)


def normaliser_of(name: str | None, data: RealData) -> Artefact:
    """A normaliser by its name in `data.normalisers`; whitening is kept, others take no time.

    Raises:
      ConfigError: an unknown name.
    """
    if name is None or not str(name).startswith("zca"):
        value = normalisers(name, data)
        return Artefact("normaliser", {"name": name, "sha256": normaliser_digest(value)},
                        value=value)

    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        tensors, meta = to_tensors(normalisers(name, data))
        write_arrays(folder / _ARRAYS, tensors, meta)

    def opened(folder: pathlib.Path) -> Normaliser:
        return from_tensors(read_arrays(folder / _ARRAYS), read_card(folder / _ARRAYS))

    if name not in NORMALISERS:
        raise unknown("normaliser", name, NORMALISERS)
    return Artefact("normaliser", {"name": name}, make, opened,
                    stand_in=lambda: identity(data.spec.shape))


def teacher(
    network: Network,
    train: Callable[..., PyTree],
    *,
    settings: Mapping[str, Any],
    normaliser: Artefact,
    seed: int = 0,
    kind: str = "teacher",
) -> Artefact:
    """The variables of one network trained on real images.

    Args:
      network: the architecture.
      train: (data, key, normaliser) -> variables.
      settings: JSON-able; all values that shape the training.
      normaliser: that its images go through.
      seed: of the training.
      kind: "teacher", or what else it is, such as "encoder".
    """
    return arrays(kind, {**architecture(network), **settings}, train,
                  lambda: jax.eval_shape(network.init, jax.random.key(0)),
                  needs={"normaliser": normaliser}, seed=seed)


def bank(
    network: Network,
    count: int,
    train: Callable[..., tuple[PyTree, PyTree]],
    *,
    settings: Mapping[str, Any],
    normaliser: Artefact,
    seed: int = 0,
) -> Artefact:
    """Several networks trained on real images, each with where it started, one file each.

    Network i has the key fold_in(key, i), so a bank of more networks goes on from one of fewer, and
    one that was killed from the network that it was at.

    Args:
      network: the architecture.
      count: n.
      train: (data, key, normaliser) -> (initial variables, trained variables).
      settings, normaliser, seed: as for `teacher`.

    Returns:
      An `Artefact` that opens as (initial, trained), every leaf [n, ...].
    """
    require_whole("bank", count, example=20)
    parts = [f"network_{i:05d}.safetensors" for i in range(count)]

    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        one = jax.jit(train)
        with StopSignals("stopping after this network") as stop:
            for i, part in enumerate(parts):
                if (folder / part).exists():
                    continue
                stop.check(f"after {i} of {count} networks of a bank, which are kept")
                found = one(data, jax.random.fold_in(key, i), have["normaliser"])
                write_arrays(folder / part, found, {"kind": "bank"})

    def opened(folder: pathlib.Path) -> tuple[PyTree, PyTree]:
        like = jax.eval_shape(network.init, jax.random.key(0))
        found = [read_arrays(folder / part, (like, like)) for part in parts]
        return jax.tree.map(lambda *x: jnp.stack(x), *found)

    def stand_in() -> tuple[PyTree, PyTree]:
        like = jax.eval_shape(network.init, jax.random.key(0))
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), like)
        return _zeros((like, like))

    return Artefact("bank", {**architecture(network), **settings}, make, opened,
                    needs={"normaliser": normaliser}, seed=seed, parts=parts, stand_in=stand_in)


def experts(
    network: Network,
    *,
    count: int,
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
    normaliser: Artefact,
    seed: int = 0,
) -> Artefact:
    """Trajectories of networks trained on real images, one file each; more go on from fewer.

    Args:
      network: the architecture.
      count: how many experts.
      training: arguments of `run.experts.train_experts`, such as epochs and learning_rate.
      settings: JSON-able; what tells these experts from others, among them what of `training` is no
        number.
      normaliser: that their images go through.
      seed: of the training.

    Returns:
      An `Artefact` that opens as the `Trajectories` of the first `count` experts.
    """
    require_whole("expert_count", count, example=100)

    def make(data: RealData, key: jax.Array, folder: pathlib.Path, have, show_progress=None):
        train_experts(folder, network, data, count=count, key=key, normaliser=have["normaliser"],
                      notes=settings, show_progress=show_progress, **training)

    numbers = {name: value for name, value in training.items()
               if isinstance(value, (int, float, list, tuple, str))}

    def stand_in() -> Trajectories:
        params = jax.eval_shape(network.init, jax.random.key(0))["params"]
        size = sum(leaf.size for leaf in jax.tree.leaves(params))
        return Trajectories(pathlib.Path(), tuple(range(count)), training["epochs"], size, {}, ())

    return Artefact("experts", {**architecture(network), **numbers, **settings}, make,
                    lambda folder: first_experts(open_trajectories(folder), count),
                    needs={"normaliser": normaliser}, seed=seed,
                    parts=[expert_name(i) for i in range(count)], stand_in=stand_in)


def first_experts(trajectories: Trajectories, count: int) -> Trajectories:
    """The open folder as if it held its first `count` experts only."""
    return dataclasses.replace(trajectories, experts=trajectories.experts[:count],
                               _files=trajectories._files[:count])


def given_experts(
    folder: str, network: Network, *, training: Mapping[str, Any], settings: Mapping[str, Any]
) -> Artefact:
    """Experts that are in a folder of the user's already; they are what they hold.

    Args:
      folder: that `train_experts` filled.
      network, training, settings: as for `experts`, of those that are asked for.

    Raises:
      CheckpointError: the folder holds no experts of this network, or others than are asked for.
    """
    like = jax.eval_shape(network.init, jax.random.key(0))["params"]
    found = open_trajectories(folder, like=like)
    check_trained(found, training, settings)
    return Artefact("experts", {"sha256": found.digest}, value=found)
