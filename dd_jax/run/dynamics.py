"""Records training dynamics into a folder, epoch by epoch, and goes on where it was stopped."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import Normaliser
from dd_jax.errors import NonFiniteError
from dd_jax.run.progress import progress
from dd_jax.run.stop import StopSignals
from dd_jax.select.dynamics import Dynamics, Recording
from dd_jax.store.arrays import read_arrays, read_card, write_arrays
from dd_jax.types import RealData

_STATE = "state.safetensors"


def epoch_file(epoch: int) -> str:
    """The name of the file of an epoch, counted from 0."""
    return f"epoch_{epoch:05d}.safetensors"


def record_dynamics(
    folder: pathlib.Path,
    recording: Recording,
    data: RealData,
    *,
    networks: int,
    epochs: int,
    normaliser: Normaliser,
    key: jax.Array,
    show_progress: bool | None = None,
) -> None:
    """Trains networks together and writes what they say of every image after each epoch.

    Network i has the key fold_in(key, i). The same call goes on after the last whole epoch of a
    training that was stopped or killed, to the same bits.

    Args:
      folder: of these dynamics alone.
      recording: how they are trained.
      data: the real set, on the device or on the host.
      networks, epochs: S, E.
      normaliser: from stored images to model space.
      key: PRNG key.
      show_progress: by default when there is somebody to see it.

    Raises:
      NonFiniteError: a network diverged; the epochs before it are kept.
      RunStopped: SIGINT or SIGTERM came; the epochs so far are kept.
    """
    keys = jnp.stack([jax.random.fold_in(key, i) for i in range(networks)])
    done = read_card(folder / _STATE)["epochs"] if (folder / _STATE).exists() else 0
    if done:
        like = jax.eval_shape(recording.begin, keys)
        trained = jax.tree.map(jnp.asarray, read_arrays(folder / _STATE, like))
    else:
        trained = recording.begin(keys)
    train = recording.trainer(data, normaliser)
    bar = progress(epochs, start=done, enabled=show_progress, unit="epoch",
                   description="training dynamics")
    with bar as shown, StopSignals("stopping after this epoch") as stop:
        for epoch in range(done, epochs):
            trained = train(trained, keys, epoch)
            seen = recording.look(trained, data, normaliser)
            if not np.isfinite(seen.loss).all() or not np.isfinite(seen.gradient).all():
                raise NonFiniteError(
                    f"a network diverged in epoch {epoch + 1} of {epochs} of the recording of "
                    "training dynamics", fix="lower the rate of the networks")
            write_arrays(folder / epoch_file(epoch), seen, {"kind": "dynamics"})
            # Afterwards: an epoch without a later state is trained again.
            write_arrays(folder / _STATE, trained, {"epochs": epoch + 1})
            shown.update(epoch + 1)
            if epoch + 1 < epochs:
                stop.check(f"after {epoch + 1} of {epochs} epochs of training dynamics, which are "
                           "kept")


def open_dynamics(folder: pathlib.Path, *, networks: int, epochs: int, images: int) -> Dynamics:
    """What was recorded, [S, E, N] NumPy arrays.

    Raises:
      CheckpointError: a file is missing, damaged or of other sizes.
    """
    like = like_dynamics(networks, images)
    found = [read_arrays(folder / epoch_file(epoch), like) for epoch in range(epochs)]
    return jax.tree.map(lambda *parts: np.stack(parts, axis=1), *found)


def like_dynamics(*sizes: int) -> Dynamics:
    """Shapes of `Dynamics` of these sizes: (S, N), or (S, E, N)."""
    def of(dtype):
        return jax.ShapeDtypeStruct(sizes, dtype)

    return Dynamics(*(of(bool if name == "correct" else np.float32) for name in Dynamics._fields))
