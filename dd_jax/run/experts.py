"""Fills a folder with expert trajectories, some at a time, and continues where it was stopped."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import as_key, map_over, on_cpu
from dd_jax.data import Normaliser
from dd_jax.errors import CheckpointError, ConfigError, require_whole, unknown
from dd_jax.run.lock import RunLock, prepare_folder
from dd_jax.run.progress import progress
from dd_jax.run.stop import StopSignals
from dd_jax.store.trajectories import (
    Trajectories,
    describe,
    differences,
    expert_files,
    open_trajectories,
    remove_unfinished,
)
from dd_jax.store.trajectory_file import DTYPES, write_expert
from dd_jax.train.experts import check_training, expert_training, train_expert
from dd_jax.train.fit import Fitted
from dd_jax.types import Network, RealData

_TOGETHER = 10  # experts per program on an accelerator
# Not a setting of all experts alike: each would need its own.
_OWN = {"normaliser", "key", "start"}


def train_experts(
    folder: str | os.PathLike,
    network: Network,
    data: RealData,
    *,
    count: int,
    normaliser: Normaliser,
    key: int | jax.Array,
    together: int | None = None,
    dtype: str = "float32",
    notes: Mapping[str, Any] | None = None,
    show_progress: bool | None = None,
    **training: Any,
) -> Trajectories:
    """Trains experts 0..count - 1 and writes each as soon as it is there.

    Expert i has the key fold_in(key, i), whatever is trained beside it. The same call continues a
    training that was stopped or killed, to the same bits: experts that are there are left alone.
    An expert takes (epochs + 1) P numbers of 4 or 2 bytes: 65 MB for 50 epochs of the ConvNet of
    32-pixel images.

    Args:
      folder: of these experts alone; made if missing.
      network: the architecture.
      data: the real set, on the device.
      count: how many experts there shall be.
      normaliser: from stored images to model space.
      key: an integer seed or a typed PRNG key.
      together: experts in one program, all lost when it is killed; by default 1 on a CPU, which
        trains them one by one, and 10 elsewhere, where they are vmapped.
      dtype: of the files, "float32", or "bfloat16" for half the bytes.
      notes: JSON-able; tells experts apart by what no number says, such as the strategy of the
        augmentation, and is compared like the other settings.
      show_progress: by default when there is somebody to see it.
      **training: epochs, batch_size, learning_rate, momentum, weight_decay, restart, augmentation
        and rule, as for `train.experts.train_expert`.

    Returns:
      The open folder, with all experts in it.

    Raises:
      ConfigError: a setting that cannot be.
      CheckpointError: the folder holds other experts or a damaged one, or is in use.
      NonFiniteError: an expert diverged.
      RunStopped: SIGINT or SIGTERM came, which is seen after each epoch; the experts so far are
        kept, the one in training begins anew.

    Example:
      >>> import tempfile
      >>> from dd_jax import data, nets
      >>> real = data.from_arrays(np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)),
      ...                         np.arange(8) % 2)
      >>> network = nets.mlp(real.spec, width=4, depth=2)
      >>> experts = train_experts(tempfile.mkdtemp(), network, real, count=2, epochs=1,
      ...                         normaliser=data.standardise(real), key=jax.random.key(0))
      >>> experts.read(0, [0, 1]).shape
      (2, 270)
    """
    key = as_key(key)
    require_whole("count", count, example=100)
    together = min(count, (1 if on_cpu() else _TOGETHER) if together is None else together)
    require_whole("together", together, example=_TOGETHER)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    settings = _settings(training)
    check_training(network, data, **settings)
    described = _described(settings, notes, key)
    description = describe(network, data, normaliser=normaliser, training=described)

    with RunLock(prepare_folder(folder)), StopSignals("stopping after this epoch") as stop:
        remove_unfinished(folder)
        wanted = {**description, "dtype": dtype, "epochs": settings["epochs"]}
        missing = _missing(folder, count, wanted)
        trained = _trainer(network, data, normaliser, settings)
        ready, epochs = count - len(missing), settings["epochs"]

        def between(done: int) -> None:
            shown.update(ready * epochs + len(turn) * done)
            stop.check(f"after {ready} of {count} experts, which are kept; the next had "
                       f"{done} of {epochs} epochs and begins anew")

        with progress(count * epochs, start=ready * epochs, enabled=show_progress, unit="epoch",
                      description=f"{count} experts") as shown:
            for first in range(0, len(missing), together):
                turn = missing[first:first + together]
                # A last turn that is not full repeats an expert: another size would be compiled.
                keys = jnp.stack([jax.random.fold_in(key, i)
                                  for i in turn + turn[-1:] * (together - len(turn))])
                for i, trajectory in zip(turn, trained(keys, between)):
                    write_expert(folder, i, trajectory, description=description, dtype=dtype)
                ready += len(turn)
                shown.update(ready * epochs)
                if ready < count:
                    stop.check(f"after {ready} of {count} experts, which are kept")
    return open_trajectories(folder)


def _trainer(
    network: Network, data: RealData, normaliser: Normaliser, settings: Mapping[str, Any]
) -> Callable[[jax.Array, Callable[[int], None]], np.ndarray]:
    """(keys [n], between) -> trajectories [n, E + 1, P] of experts that are trained side by side.

    Between two epochs it calls `between(epochs done)`, which may end the training by an error.
    """
    training, epochs = expert_training(network, **settings), settings["epochs"]

    def with_row(fitted: Fitted) -> tuple[Fitted, jax.Array]:
        return fitted, training.flat(fitted.variables)

    @jax.jit
    def begin(data: RealData, keys: jax.Array):
        return map_over(lambda key: with_row(training.begin(data, key)), keys)

    # The count is traced: a loop of one epoch would be another program, with other last bits.
    @functools.partial(jax.jit, donate_argnames="experts")
    def go_on(data, normaliser, keys, experts: Fitted, number: jax.Array, count: jax.Array):
        return map_over(
            lambda one: with_row(training.go_on(data, normaliser, *one, number, count)),
            (keys, experts))

    def trained(keys: jax.Array, between: Callable[[int], None]) -> np.ndarray:
        experts, row = begin(data, keys)
        rows = [np.asarray(row)]
        for number in range(epochs):
            if number:
                between(number)
            experts, row = go_on(data, normaliser, keys, experts, jnp.int32(number), jnp.int32(1))
            rows.append(np.asarray(row))
        return np.stack(rows, axis=1)

    return trained


def check_trained(
    experts: Trajectories, training: Mapping[str, Any], notes: Mapping[str, Any] | None = None
) -> None:
    """Refuses experts whose training is not the one that is asked for.

    What must agree is what shapes a trajectory: more epochs than are asked for do no harm where the
    first ones are alike, the key is theirs, and a note counts where both have it.

    Args:
      experts: the open folder; one that says nothing of its training passes.
      training: as for `train_experts`.
      notes: as there.

    Raises:
      CheckpointError: another training, with what is there and what is asked for.
      ConfigError: a setting that no training has.

    Example:
      >>> held = {"training": {"batch_size": 256, "epochs": 2, "learning_rate": 0.01}}
      >>> experts = Trajectories("folder", (0,), 2, 270, held, ())
      >>> check_trained(experts, {"batch_size": 512, "epochs": 2})
      Traceback (most recent call last):
      ...
      dd_jax.errors.CheckpointError: ... batch_size is 256 there, 512 asked for; ...
    """
    held = experts.description.get("training")
    if not isinstance(held, Mapping):
        return
    wanted = _told(_settings(training), notes)
    epochs, own_notes = min(experts.epochs, wanted["epochs"]), held.get("notes") or {}
    shared = sorted(own_notes.keys() & wanted["notes"].keys())
    there = {**_of_first(held, epochs), "epochs": epochs,
             "notes": {name: own_notes[name] for name in shared}}
    asked = {**_of_first(wanted, epochs), "notes": {name: wanted["notes"][name] for name in shared}}
    names = there.keys() & asked.keys()
    odd = differences({name: there[name] for name in names}, {name: asked[name] for name in names})
    if odd:
        raise CheckpointError(
            f"the experts of {experts.folder} were trained otherwise than the settings say: "
            + "; ".join(f"{name} is {a} there, {b} asked for" for name, a, b in odd),
            fix="set what they were trained with, or leave experts out to have others made")


def _of_first(told: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """What is told of a training, as far as its first epochs go; one rate where they are alike."""
    told = {"restart": None, **told}
    if told["restart"] is not None and told["restart"] >= epochs:
        told["restart"] = None
    if isinstance(told.get("learning_rate"), list):
        rates = told["learning_rate"][:epochs]
        told["learning_rate"] = rates[0] if len(set(rates)) == 1 else rates
    return told


def _settings(training: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a training, those that were not given at their defaults."""
    known = {name: parameter.default
             for name, parameter in inspect.signature(train_expert).parameters.items()
             if parameter.kind is parameter.KEYWORD_ONLY and name not in _OWN}
    for name in training:
        if name not in known:
            raise unknown("setting of an expert", name, known)
    if "epochs" not in training:
        raise ConfigError("epochs is missing, expected an integer", fix="pass epochs=50")
    return {**known, **training}


def _described(settings: Mapping[str, Any], notes: Mapping[str, Any] | None,
               key: jax.Array) -> dict[str, Any]:
    """The settings and the key as JSON can hold them."""
    return {**_told(settings, notes), "key": np.asarray(jax.random.key_data(key)).tolist()}


def _told(settings: Mapping[str, Any], notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings as JSON can hold them; "restart" only where there is one, as ever."""
    rule, rate = settings["rule"], settings["learning_rate"]
    told = {
        **settings,
        "rule": rule and dict(rule.settings),
        "augmentation": settings["augmentation"] is not None,
        "learning_rate": float(rate) if np.ndim(rate) == 0 else [float(r) for r in rate],
        "notes": dict(notes or {}),
    }
    if told["restart"] is None:
        del told["restart"]
    return told


def _missing(folder: str | os.PathLike, count: int, wanted: Mapping[str, Any]) -> list[int]:
    """The experts that are still to be trained; refuses a folder with experts of another kind."""
    there = expert_files(folder)
    for file in there.values():
        odd = differences(file.identity, wanted)
        if odd:
            raise CheckpointError(
                f"{file.path} is an expert of another kind: "
                + "; ".join(f"{name} is {a} there, {b} now" for name, a, b in odd),
                fix="use another folder, or go back to its settings")
    return [i for i in range(count) if i not in there]
