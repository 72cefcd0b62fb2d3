"""Trains one network on real images into a folder, epoch by epoch, and goes on where it stopped."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.backend import own_dtypes
from dd_jax.data import Normaliser, as_index
from dd_jax.errors import NonFiniteError
from dd_jax.run.progress import progress
from dd_jax.run.stop import StopSignals
from dd_jax.store.arrays import read_arrays, read_card, write_arrays
from dd_jax.train import fit, permuted_epochs, real_images
from dd_jax.types import Network, PyTree, RealData

STATE = "state.safetensors"
_NETWORK, _EPOCHS = range(2)


def train_network(
    folder: pathlib.Path,
    network: Network,
    data: RealData,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    views: Callable | None = None,
    save_seconds: float = 60.0,
    show_progress: bool | None = None,
) -> PyTree:
    """Trains a network by cross-entropy to the labels; every image once in each epoch.

    Epoch e draws from the key and e alone, so that a training that was stopped or killed and goes
    on ends in the same bits.

    Args:
      folder: where its state is kept meanwhile, in the file `STATE`; whoever keeps the result
        deletes it.
      network: the architecture.
      data: the real set, on the device or on the host.
      normaliser: from stored images to model space.
      key: PRNG key.
      epochs, batch_size: of the training.
      optimizer: of the parameters; a schedule counts steps over all epochs.
      views: (key, images, labels) -> (images, labels), see `train.augmented`.
      save_seconds: between two writings of the state.
      show_progress: by default when there is somebody to see it.

    Returns:
      The trained variables.

    Raises:
      NonFiniteError: the network diverged.
      RunStopped: SIGINT or SIGTERM came; the epochs so far are kept.
    """
    path, step = folder / STATE, _epoch(network, data, normaliser, batch_size, optimizer, views)
    state, done = _begin(network, optimizer, jax.random.fold_in(key, _NETWORK)), 0
    if path.exists():
        done = read_card(path)["epochs"]
        state = jax.tree.map(jnp.asarray, read_arrays(path, state))
    saved = time.monotonic()
    bar = progress(epochs, start=done, enabled=show_progress, unit="epoch",
                   description=f"training {network.name}")
    with bar as shown, StopSignals("stopping after this epoch") as stop:
        for epoch in range(done, epochs):
            state = step(state, jax.random.fold_in(key, _EPOCHS), epoch)
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state[0])):
                raise NonFiniteError(f"{network.name} diverged in epoch {epoch + 1} of {epochs}",
                                     fix="lower its learning_rate")
            shown.update(epoch + 1)
            if stop.requested or time.monotonic() - saved >= save_seconds:
                write_arrays(path, state, {"epochs": epoch + 1})
                saved = time.monotonic()
            if epoch + 1 < epochs:
                stop.check(f"after {epoch + 1} of {epochs} epochs of {network.name}, which are "
                           "kept")
    return state[0]


@own_dtypes()
def _begin(network: Network, optimizer: optax.GradientTransformation, key: jax.Array):
    @jax.jit
    def begin(key):
        variables = network.init(key)
        return variables, optimizer.init(variables["params"])

    return begin(key)


def _epoch(network, data: RealData, normaliser, batch_size, optimizer, views) -> Callable:
    """((variables, state), key, epoch) -> the same after one more epoch; compiled once."""
    on_host = not isinstance(data.images, jax.Array)
    held = as_index(data) if on_host else data

    @jax.jit
    def of(held, normaliser, state, key, epoch):
        fitted = fit(network, state[0], state=state[1], key=key, first=epoch, optimizer=optimizer,
                     take=real_images(data if on_host else held, normaliser), views=views,
                     batches=permuted_epochs(len(data.labels), batch_size, 1))
        return fitted.variables, fitted.optimizer

    return own_dtypes()(lambda state, key, epoch: of(held, normaliser, state, key,
                                                     jnp.int32(epoch)))
