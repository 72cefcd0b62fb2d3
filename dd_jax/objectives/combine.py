"""Objectives made of objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax

from dd_jax.errors import ConfigError, require_kind, told
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


def wrapped_variants(
    objectives: Sequence[Objective], wrap: Callable[..., Objective]
) -> dict[str, Callable[[], Objective]]:
    """The `variants` of a combination: under each name, of the parts' variants of that name.

    Args:
      objectives: the parts. One that has no variant of a name enters as it is.
      wrap: (parts) -> the combination, given as many arguments as there are parts.

    Returns:
      name -> function of no arguments that builds the combination when it is called.

    Example:
      >>> heavy = Objective(lambda *args: (0.0, {"kept": 9}))
      >>> light = heavy._replace(loss=lambda *args: (0.0, {"kept": 1}))
      >>> heavy = heavy._replace(variants={"kept=1": lambda: light})
      >>> wrapped_variants([heavy], lambda part: part)["kept=1"]() is light
      True
    """
    names = dict.fromkeys(name for part in objectives for name in part.variants)

    def build(name: str) -> Objective:
        return wrap(*(part.variants[name]() if name in part.variants else part
                      for part in objectives))

    return {name: partial(build, name) for name in names}


def joined_traits(objectives: Sequence[Objective]) -> dict[str, Any]:
    """`bound` and `real` of a combination: the first reason there is; whether any part looks."""
    return dict(bound=next((part.bound for part in objectives if part.bound), ""),
                real=any(part.real for part in objectives))


def _finite(weight: Any) -> bool:
    try:
        return not isinstance(weight, (str, bool)) and math.isfinite(float(weight))
    except (TypeError, ValueError):
        return False


def weighted_sum(objectives: Sequence[Objective], weights: Sequence[float]) -> Objective:
    """The objective L = sum_i weights[i] * L_i; every part keeps its own state and real batch.

    Args:
      objectives: at least one.
      weights: as many finite numbers.

    Returns:
      An `Objective` whose state, rows and batch are tuples; metrics of part i get the suffix "/i",
      and "loss/i" is its unweighted loss. It embeds as the first part does that can, and has the
      largest of their `turns`.

    Raises:
      ConfigError: no objectives, or weights of another number or that are not finite.

    Example:
      >>> weighted_sum([], [])
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: weighted_sum got no objectives; pass at least one
    """
    for what, given in (("objectives", objectives), ("weights", weights)):
        if isinstance(given, Objective) or not isinstance(given, Iterable):
            raise ConfigError(f"{what} is {told(given)}, expected a list",
                              fix="call weighted_sum([objective, ...], [weight, ...])")
    objectives, weights = tuple(objectives), tuple(weights)
    if not objectives:
        raise ConfigError("weighted_sum got no objectives", fix="pass at least one")
    if len(objectives) != len(weights):
        raise ConfigError(
            f"weighted_sum got {len(objectives)} objectives and {len(weights)} weights",
            fix="pass one weight for each objective",
        )
    for objective, weight in zip(objectives, weights):
        require_kind("an objective", objective, Objective, expected="an Objective",
                     fix="pass recipe.objective, or Objective(loss)")
        if not _finite(weight):
            raise ConfigError(f"weighted_sum got the weight {told(weight)}, expected a number that "
                              "is finite", fix="pass for example 0.5")

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

    return Objective(
        loss=loss, init=init, sample=sample, advance=advance,
        embed=embed_of_parts(objectives),
        turns=max(part.turns for part in objectives),
        variants=wrapped_variants(objectives, lambda *parts: weighted_sum(parts, weights)),
        **joined_traits(objectives),
    )
