"""One network that is trained on the synthetic set step by step, and restarted when its error on
real images has stopped falling.

Source: Bohdal, Yang and Hospedales, Flexible Dataset Distillation: Learn Labels Instead of Images,
2020.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.backend import mean_in_chunks
from dd_jax.errors import require_whole
from dd_jax.labels.losses import integer_cross_entropy
from dd_jax.train.batches import random_batches
from dd_jax.train.fit import fit, rows_of
from dd_jax.types import Batch, Network, Pool, PyTree, SyntheticSet


class RestartingState(NamedTuple):
    """State of a restarted pool.

    Attributes:
      variables, optimizer: of the network and of its optimizer.
      errors: [window] float32, real cross-entropies after its last steps, newest last.
      best: [] float32, the lowest mean of a full window so far.
      stalled: [] int32, steps since then.
      age: [] int32, steps that this network has had.
    """

    variables: PyTree
    optimizer: PyTree
    errors: jax.Array
    best: jax.Array
    stalled: jax.Array
    age: jax.Array


def restarting_pool(
    network: Network,
    *,
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    window: int = 50,
) -> Pool:
    """The network takes one step of cross-entropy on the set per use, until it stands still.

    Its error on the step's real batch enters a window of the last ones; once the mean over a full
    window has not been lower than before for as many steps as the window has, a new network takes
    over.

    Args:
      network: the architecture, without batch normalisation's running statistics.
      optimizer: of the network; Adam with its defaults (0.001) if None.
      batch_size: synthetic images per step, drawn without replacement; None for all.
      window: errors that are averaged.

    Returns:
      A `Pool` with `RestartingState` that watches: its `advance(state, synthetic, key, real)` takes
      the real `Batch` (images [B, H, W, C], labels [B]). The network stays in its own dtype,
      whatever that of the set is.

    Raises:
      ConfigError: a number below 1.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> pool = restarting_pool(network, window=50)
    """
    require_whole("pool window", window, example=50)
    require_whole("pool batch_size", 1 if batch_size is None else batch_size, example=50)
    optimizer = optimizer or optax.adam(1e-3)
    zero = jnp.int32

    def new(key: jax.Array) -> RestartingState:
        variables = network.init(key)
        return RestartingState(
            variables, optimizer.init(variables["params"]), jnp.zeros((window,), jnp.float32),
            jnp.asarray(jnp.inf, jnp.float32), zero(0), zero(0))

    def error(variables: PyTree, real: Batch) -> jax.Array:
        def each(part):
            logits = network.apply(variables, part[0], True).logits
            return integer_cross_entropy(logits, part[1])

        return mean_in_chunks(each, (real.images, real.labels))

    def trained(state: RestartingState, synthetic: SyntheticSet, key: jax.Array):
        images, labels = synthetic.images, synthetic.labels
        return fit(network, state.variables, state=state.optimizer, take=rows_of(images, labels),
                   batches=random_batches(images.shape[0], batch_size, 1), optimizer=optimizer,
                   key=key)[:2]

    def advance(state: RestartingState, synthetic: SyntheticSet, key: jax.Array, real: Batch):
        train_key, renew_key = jax.random.split(key)
        synthetic, real = jax.lax.stop_gradient((synthetic, real))
        variables, opt_state = trained(state, synthetic, train_key)
        newest = error(variables, real).astype(state.errors.dtype)
        errors = jnp.concatenate([state.errors[1:], newest[None]])
        age, mean = state.age + 1, jnp.mean(errors)
        better = (age >= window) & (mean < state.best)
        best = jnp.where(better, mean, state.best)
        stalled = jnp.where(better | (age < window), 0, state.stalled + 1)
        return jax.lax.cond(
            # Also where its error is no number: such a network would stay for ever.
            (stalled >= window) | ~jnp.isfinite(newest),
            lambda: new(renew_key),
            lambda: RestartingState(variables, opt_state, errors, best, stalled, age))

    return Pool(init=lambda key, synthetic: new(key),
                draw=lambda state, key: state.variables, advance=advance, watches=True)
