"""Objectives that take turns: some steps of one, then some of the next, and so on round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, require_whole
from dd_jax.objectives.combine import (
    embed_of_parts,
    joined_traits,
    part_keys,
    wrapped_variants,
)
from dd_jax.types import Objective, PyTree, SyntheticSet


class AlternatingState(NamedTuple):
    """State of `alternating`.

    Attributes:
      parts: states of the objectives.
      step: [] int32, steps taken in this round.
    """

    parts: tuple
    step: jax.Array


def alternating(objectives: Sequence[Objective], steps: Sequence[int]) -> Objective:
    """Objective i alone for steps[i] steps, then the next one; after the last, the first again.

    Args:
      objectives: at least two.
      steps: how many steps each has in a round.

    Returns:
      An `Objective` with `AlternatingState`. Only the part whose turn it is computes a loss and
      advances; every part samples its rows in every step. The metric "part" says whose the loss
      is; the parts' own metrics are left out. It embeds as the first part does that can.
      Its `turns` are the steps of a round.

    Raises:
      ConfigError: fewer than two objectives, another number of counts, a count below 1.

    Example:
      >>> alternating([], [])
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: alternating got 0 objectives, expected at least 2; pass two or more
    """
    objectives, steps = tuple(objectives), tuple(steps)
    if len(objectives) < 2:
        raise ConfigError(f"alternating got {len(objectives)} objectives, expected at least 2",
                          fix="pass two or more")
    if len(steps) != len(objectives):
        raise ConfigError(f"alternating got {len(objectives)} objectives and {len(steps)} counts",
                          fix="pass one number of steps for each objective")
    for count in steps:
        require_whole("objective steps", count, example=10)
    ends = np.cumsum(steps).astype(np.int32)

    def keys(key):
        return part_keys(key, len(objectives))

    def whose(step: jax.Array) -> jax.Array:
        return jnp.sum(step >= ends).astype(jnp.int32)

    def init(key: jax.Array, synthetic: SyntheticSet) -> AlternatingState:
        parts = tuple(o.init(k, synthetic) for o, k in zip(objectives, keys(key)))
        return AlternatingState(parts, jnp.zeros((), jnp.int32))

    def sample(data, state: AlternatingState, key: jax.Array) -> PyTree:
        return tuple(o.sample(data, s, k) for o, s, k in zip(objectives, state.parts, keys(key)))

    def loss(synthetic: SyntheticSet, state: AlternatingState, batch: PyTree, key: jax.Array):
        part = whose(state.step)

        def branch(i):
            def value():
                return objectives[i].loss(synthetic, state.parts[i], batch[i], keys(key)[i])[0]

            return value

        value = jax.lax.switch(part, [branch(i) for i in range(len(objectives))])
        return value, {"part": part}

    def advance(synthetic: SyntheticSet, state: AlternatingState, batch: PyTree, key: jax.Array):
        def branch(i):
            def advanced():
                new = objectives[i].advance(synthetic, state.parts[i], batch[i], keys(key)[i])
                return (*state.parts[:i], new, *state.parts[i + 1 :])

            return advanced

        parts = jax.lax.switch(whose(state.step), [branch(i) for i in range(len(objectives))])
        return AlternatingState(parts, (state.step + 1) % int(ends[-1]))

    embed_parts = embed_of_parts(objectives)

    def embed(state: AlternatingState, images: jax.Array, key: jax.Array) -> jax.Array:
        return embed_parts(state.parts, images, key)

    return Objective(
        loss=loss, init=init, sample=sample, advance=advance,
        embed=embed if embed_parts else None,
        turns=int(ends[-1]),
        variants=wrapped_variants(objectives, lambda *parts: alternating(parts, steps)),
        **joined_traits(objectives),
    )
