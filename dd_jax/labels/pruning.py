"""A store with a part of its batches, and how a training draws from what is left.

Whole batches are left out at random, whatever epoch they were recorded in. A training draws batches
from the pool without replacement, also regardless of their epochs, and fills it up again when it is
empty.

Source: Xiao and He, Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?,
NeurIPS 2024. Differs from the official code in the temperature of the student, which is fixed:
the search of a grid after every epoch is a state that no source of targets has.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero, require_whole


def check_ratio_kept(pruned: object) -> None:
    """Refuses a share of batches to leave out that is not in 0..1, 1 excluded.

    Raises:
      ConfigError: as said.
    """
    if isinstance(pruned, bool) or not (isinstance(pruned, (int, float)) and 0.0 <= pruned < 1.0):
        raise ConfigError(f"pruned is {pruned!r}, expected a share in 0..1, below 1",
                          fix="pass pruned=0.9 to keep a tenth")


def kept_count(batches: int, pruned: float) -> int:
    """How many of so many batches are kept: (1 - pruned) of them, rounded, at least 1.

    Example:
      >>> kept_count(600, 0.975), kept_count(3, 0.9)
      (15, 1)
    """
    return max(1, round((1.0 - pruned) * batches))


def pool_draw(key: jax.Array, pool: int, start: jax.Array, count: int) -> jax.Array:
    """Batches that steps start .. start + count - 1 of a training take from a pool.

    Step s takes number s mod P of permutation s // P, so that every round of P steps takes every
    batch once.

    Args:
      key: PRNG key of all rounds.
      pool: P, batches of the pool.
      start: [] int32, steps before.
      count: steps.

    Returns:
      [count] int32 in 0..P - 1.

    Example:
      >>> sorted(pool_draw(jax.random.key(0), 3, 3, 3).tolist())
      [0, 1, 2]
    """
    steps = start + jnp.arange(count, dtype=jnp.int32)
    first = start // pool
    rounds = first + jnp.arange((count - 1) // pool + 2, dtype=jnp.int32)

    def of_round(number):
        return jax.random.permutation(jax.random.fold_in(key, number), pool).astype(jnp.int32)

    return jax.lax.map(of_round, rounds)[steps // pool - first, steps % pool]


@dataclasses.dataclass(frozen=True)
class Decay:
    """A teacher's temperature that falls with the epochs, so that a reused label is another target.

    max(floor, start factor^floor(epoch / every)).

    Attributes:
      start, factor, every, floor: as in the formula.

    Raises:
      ConfigError: a field that cannot be.

    Example:
      >>> Decay()(60).round(3).item()
      9.8...
    """

    start: float = 20.0
    factor: float = 0.7
    every: int = 30
    floor: float = 2.0

    def __post_init__(self):
        require_whole("every", self.every, example=30)
        for name in ("start", "factor", "floor"):
            require_above_zero(name, getattr(self, name), why="logits are divided by it",
                               example=getattr(type(self), name))

    def __call__(self, epoch: jax.Array) -> jax.Array:
        """The temperature of an epoch, [] float32."""
        times = jnp.asarray(epoch) // self.every
        return jnp.maximum(self.floor, self.start * jnp.float32(self.factor) ** times)
