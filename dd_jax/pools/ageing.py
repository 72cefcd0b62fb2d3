"""A pool of networks that age: each use trains one a little on the synthetic set, the old are
replaced by new ones.

Source: yongchao97/FRePo; Zhou et al., Dataset Distillation using Neural Feature Regression, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError
from dd_jax.labels.losses import Loss, squared_error
from dd_jax.labels.supervision import own_labels
from dd_jax.train.batches import random_batches
from dd_jax.train.fit import fit, rows_of
from dd_jax.types import Network, Pool, PyTree, SyntheticSet

_COUNT, _STEPS = range(2)


class AgeingState(NamedTuple):
    """State of an ageing pool of m networks.

    Attributes:
      variables: the networks' variables, every leaf stacked to [m, ...].
      optimizer: their optimizer states, stacked.
      ages: [m] int32, training steps since the network was new (staggered at the start).
      current: [] int32, the network that this step uses.
    """

    variables: PyTree
    optimizer: PyTree
    ages: jax.Array
    current: jax.Array


def ageing_pool(
    network: Network,
    *,
    size: int = 10,
    max_age: int = 100,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss = squared_error,
    max_batch: int = 1000,
    train_steps: tuple[int, int] = (1, 1),
    transform: Callable[[SyntheticSet], SyntheticSet] | None = None,
) -> Pool:
    """FRePo's pool: per step one network is used, then trained a little on the synthetic set.

    Ages start staggered (network i at i * max_age / size) with untrained weights, as in the
    official code. A network older than `max_age` is replaced by a new one instead of being
    trained. The network of the next step is drawn uniformly.

    Args:
      network: the architecture.
      size: number m of networks kept.
      max_age: training steps after which a network is replaced.
      optimizer: trains the networks; Adam with rate 3e-4 by default.
      loss: (logits [B, K], labels [B, K]) -> [B], the networks' training loss.
      max_batch: a larger synthetic set is subsampled to this many images without replacement.
      train_steps: (low, high), training steps after one use, drawn uniformly from low..high.
      transform: of the synthetic set that networks are trained on, such as `with_mirrors`.

    Returns:
      A `Pool` with `AgeingState`.

    Raises:
      ConfigError: a size or age below 1, a range of steps that is none.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> pool = ageing_pool(nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8), size=3)
    """
    for label, value in (("size", size), ("max_age", max_age), ("max_batch", max_batch)):
        if value < 1:
            raise ConfigError(f"pool {label} is {value}, expected at least 1",
                              fix=f"pass {label}=1 or more")
    low, high = train_steps
    if not 1 <= low <= high:
        raise ConfigError(f"pool train_steps is {train_steps!r}, expected 1 <= low <= high",
                          fix="pass train_steps=(1, 15) or similar")
    optimizer = optimizer or optax.adam(3e-4)

    def init(key: jax.Array, synthetic: SyntheticSet) -> AgeingState:
        return _staggered(network, optimizer, key, size=size, max_age=max_age)

    def draw(state: AgeingState, key: jax.Array) -> PyTree:
        return jax.tree.map(lambda x: x[state.current], state.variables)

    def grown_up(entry: tuple, synthetic: SyntheticSet, key: jax.Array) -> tuple:
        count = 1 if high == 1 else jax.random.randint(
            jax.random.fold_in(key, _COUNT), (), low, high + 1)
        return older(network, entry, synthetic, jax.random.fold_in(key, _STEPS), steps=count,
                      optimizer=optimizer, loss=loss, batch_size=max_batch)

    def advance(state: AgeingState, synthetic: SyntheticSet, key: jax.Array) -> AgeingState:
        work_key, next_key = jax.random.split(key)
        synthetic = jax.lax.stop_gradient(transform(synthetic) if transform else synthetic)
        stacks, current = state[:3], state.current
        entry = jax.tree.map(lambda x: x[current], stacks)
        entry = jax.lax.cond(
            entry[2] > max_age,
            lambda: _new(network, optimizer, work_key),
            lambda: grown_up(entry, synthetic, work_key),
        )
        stacks = jax.tree.map(lambda s, v: s.at[current].set(v), stacks, entry)
        return AgeingState(*stacks, jax.random.randint(next_key, (), 0, size, jnp.int32))

    return Pool(init=init, draw=draw, advance=advance)


def _staggered(network, optimizer, key: jax.Array, *, size: int, max_age: int) -> AgeingState:
    """New networks that count as of ages from 0 to below `max_age`."""
    draw_key, *keys = jax.random.split(key, size + 1)
    variables = jax.tree.map(lambda *x: jnp.stack(x), *[network.init(k) for k in keys])
    return AgeingState(
        variables=variables,
        optimizer=jax.vmap(optimizer.init)(variables["params"]),
        ages=jnp.arange(size, dtype=jnp.int32) * (max_age // size),
        current=jax.random.randint(draw_key, (), 0, size, jnp.int32),
    )


def _new(network: Network, optimizer, key: jax.Array) -> tuple[PyTree, PyTree, jax.Array]:
    """(variables, optimizer state, age) of a new network."""
    variables = network.init(key)
    return variables, optimizer.init(variables["params"]), jnp.zeros((), jnp.int32)


def older(
    network: Network,
    entry: tuple[PyTree, PyTree, jax.Array],
    synthetic: SyntheticSet,
    key: jax.Array,
    *,
    steps: int | jax.Array,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    batch_size: int | None,
) -> tuple[PyTree, PyTree, jax.Array]:
    """An entry of an ageing pool after so many steps on the set.

    Args:
      network: the architecture.
      entry: (variables, optimizer state, age [] int32).
      synthetic: the set.
      key: PRNG key of its batches.
      steps, optimizer, loss: of the training.
      batch_size: images per step, drawn without replacement; None for all.

    Returns:
      Such an entry.
    """
    variables, state, age = entry
    images, labels = synthetic.images, synthetic.labels
    fitted = fit(
        network, variables, state=state, take=rows_of(images, labels), optimizer=optimizer,
        batches=random_batches(images.shape[0], batch_size, steps), key=key,
        supervision=own_labels(loss),
    )
    return fitted.variables, fitted.optimizer, age + jnp.asarray(steps, age.dtype)
