"""Objectives made of objectives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax

from dd_jax.errors import ConfigError
from dd_jax.types import Objective, SyntheticSet


def part_keys(key: jax.Array, count: int) -> list[jax.Array]:
    """A key for each of so many parts."""
    return [jax.random.fold_in(key, i) for i in range(count)]


def embed_of_parts(objectives: Sequence[Objective]) -> Callable[..., jax.Array] | None:
    """(parts' states, images, key) -> features by the first part that has any, else None."""
    for i, objective in enumerate(objectives):
        if objective.embed is not None:
            return lambda states, images, key: objective.embed(states[i], images, key)
    return None


def weighted_sum(objectives: Sequence[Objective], weights: Sequence[float]) -> Objective:
    """The objective L = sum_i weights[i] * L_i; every part keeps its own state and real batch.

    Args:
      objectives: at least one.
      weights: as many finite numbers.

    Returns:
      An `Objective` whose state, rows and batch are tuples; metrics of part i get the suffix "/i",
      and "loss/i" is its unweighted loss. It embeds as the first part does that can.

    Raises:
      ConfigError: no objectives, or another number of weights.

    Example:
      >>> weighted_sum([], [])
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: weighted_sum got no objectives; pass at least one
    """
    objectives, weights = tuple(objectives), tuple(weights)
    if not objectives:
        raise ConfigError("weighted_sum got no objectives", fix="pass at least one")
    if len(objectives) != len(weights):
        raise ConfigError(
            f"weighted_sum got {len(objectives)} objectives and {len(weights)} weights",
            fix="pass one weight for each objective",
        )

    def keys(key):
        return part_keys(key, len(objectives))

    def init(key, synthetic: SyntheticSet):
        return tuple(o.init(k, synthetic) for o, k in zip(objectives, keys(key)))

    def sample(data, state, key):
        return tuple(o.sample(data, s, k) for o, s, k in zip(objectives, state, keys(key)))

    def loss(synthetic, state, batch, key):
        total, metrics = 0.0, {}
        for i, (o, k) in enumerate(zip(objectives, keys(key))):
            value, extra = o.loss(synthetic, state[i], batch[i], k)
            total = total + weights[i] * value
            metrics.update({f"{name}/{i}": v for name, v in {"loss": value, **extra}.items()})
        return total, metrics

    def advance(synthetic, state, batch, key):
        return tuple(
            o.advance(synthetic, s, b, k)
            for o, s, b, k in zip(objectives, state, batch, keys(key))
        )

    return Objective(init=init, sample=sample, loss=loss, advance=advance,
                     embed=embed_of_parts(objectives))
