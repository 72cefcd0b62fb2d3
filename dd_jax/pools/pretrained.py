"""A pool whose networks have been trained on the synthetic set, each for another time, before the
first step.

Source: db-Lee/selfsup_dd; Lee et al., Self-Supervised Dataset Distillation for Transfer Learning,
ICLR 2024.
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError
from dd_jax.labels.losses import Loss, mean_squared_error
from dd_jax.pools.ageing import AgeingState, ageing_pool, older
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.types import Network, Pool, SyntheticSet


def pretrained_pool(
    network: Network,
    *,
    size: int = 10,
    max_age: int = 1000,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss = mean_squared_error,
    reset_age: bool = True,
) -> Pool:
    """KRR-ST's pool: networks of all ages from the start, each trained once per use.

    At the start network i is trained on the whole synthetic set for a_i steps, a_i uniform in
    1..max_age - 1. A step uses one network, drawn uniformly, and then trains it for one step on
    the whole set, or replaces it by an untrained one of age 0 where it has had `max_age` steps.

    Args:
      network: the architecture.
      size: number of networks kept.
      max_age: training steps after which a network is replaced, at least 2.
      optimizer: trains the networks; `decayed_momentum()` by default.
      loss: (logits [M, R], labels [M, R]) -> [M], the networks' training loss.
      reset_age: False repeats an error of the released code: a network that replaces an old one
        keeps its age, and is itself replaced after every use, so that in the end no network of
        the pool is trained.

    Returns:
      A `Pool` with `AgeingState`.

    Raises:
      ConfigError: a size below 1 or an age below 2.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> spec = DataSpec("toy", (4, 4, 1), 2, ("a", "b"))
      >>> pool = pretrained_pool(nets.mlp(spec, width=8), size=3, max_age=5)
    """
    if max_age < 2:
        raise ConfigError(f"pool max_age is {max_age}, expected at least 2",
                          fix="pass max_age=1000")
    optimizer = optimizer or decayed_momentum()
    options = dict(optimizer=optimizer, loss=loss)
    # An ageing pool replaces what is older than its limit: one below replaces at `max_age`.
    pool = ageing_pool(network, size=size, max_age=max_age - 1, max_batch=sys.maxsize, **options)

    def init(key: jax.Array, synthetic: SyntheticSet) -> AgeingState:
        pool_key, ages_key, train_key = jax.random.split(key, 3)
        start = pool.init(pool_key, synthetic)
        synthetic = jax.lax.stop_gradient(synthetic)

        def trained(given):
            entry, steps, key = given
            return older(network, entry, synthetic, key, steps=steps, batch_size=None, **options)

        ages = jax.random.randint(ages_key, (size,), 1, max_age, jnp.int32)
        new = (start.variables, start.optimizer, jnp.zeros_like(ages))
        # One after another: each has its own number of steps.
        entries = jax.lax.map(trained, (new, ages, jax.random.split(train_key, size)))
        return AgeingState(*entries, start.current)

    def advance(state: AgeingState, synthetic: SyntheticSet, key: jax.Array) -> AgeingState:
        after = pool.advance(state, synthetic, key)
        if reset_age:
            return after
        return after._replace(ages=jnp.maximum(after.ages, state.ages))

    return Pool(init=init, draw=pool.draw, advance=advance)
