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
from dd_jax.nets import with_batch_stats
from dd_jax.types import Network, Pool, PyTree, SyntheticSet


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


def squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch of half the squared distance, summed over classes."""
    return 0.5 * jnp.mean(jnp.sum((logits - labels) ** 2, axis=-1))


def ageing_pool(
    network: Network,
    *,
    size: int = 10,
    max_age: int = 100,
    optimizer: optax.GradientTransformation | None = None,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = squared_error,
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
      loss: (logits [B, K], labels [B, K]) -> scalar, the networks' training loss.
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
        draw_key, *keys = jax.random.split(key, size + 1)
        variables = jax.tree.map(lambda *x: jnp.stack(x), *[network.init(k) for k in keys])
        return AgeingState(
            variables=variables,
            optimizer=jax.vmap(optimizer.init)(variables["params"]),
            ages=jnp.arange(size, dtype=jnp.int32) * (max_age // size),
            current=jax.random.randint(draw_key, (), 0, size, jnp.int32),
        )

    def draw(state: AgeingState, key: jax.Array) -> PyTree:
        return jax.tree.map(lambda x: x[state.current], state.variables)

    def renew(key):
        fresh = network.init(key)
        return fresh, optimizer.init(fresh["params"]), jnp.zeros((), jnp.int32)

    def train(variables, opt_state, synthetic, key, age):
        images, labels = synthetic.images, synthetic.labels
        if images.shape[0] > max_batch:
            rows = jax.random.permutation(key, images.shape[0])[:max_batch]
            images, labels = images[rows], labels[rows]

        def objective(params):
            outputs = network.apply({**variables, "params": params}, images, True)
            return loss(outputs.logits, labels), outputs

        grads, outputs = jax.grad(objective, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(grads, opt_state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return with_batch_stats({**variables, "params": params}, outputs), opt_state, age + 1

    def train_some(variables, opt_state, synthetic, key, age):
        if high == 1:
            return train(variables, opt_state, synthetic, key, age)
        count = jax.random.randint(jax.random.fold_in(key, 0), (), low, high + 1)

        def step(i, carry):
            variables, opt_state, age = carry
            return train(variables, opt_state, synthetic, jax.random.fold_in(key, i + 1), age)

        return jax.lax.fori_loop(0, count, step, (variables, opt_state, age))

    def advance(state: AgeingState, synthetic: SyntheticSet, key: jax.Array) -> AgeingState:
        work_key, next_key = jax.random.split(key)
        synthetic = jax.lax.stop_gradient(transform(synthetic) if transform else synthetic)
        current = state.current
        variables = jax.tree.map(lambda x: x[current], state.variables)
        opt_state = jax.tree.map(lambda x: x[current], state.optimizer)
        age = state.ages[current]
        new = jax.lax.cond(
            age > max_age,
            lambda: renew(work_key),
            lambda: train_some(variables, opt_state, synthetic, work_key, age),
        )

        def write(stack, value):
            return jax.tree.map(lambda s, v: s.at[current].set(v), stack, value)

        return AgeingState(
            variables=write(state.variables, new[0]),
            optimizer=write(state.optimizer, new[1]),
            ages=state.ages.at[current].set(new[2]),
            current=jax.random.randint(next_key, (), 0, size, jnp.int32),
        )

    return Pool(init=init, draw=draw, advance=advance)
