"""An objective of a set that is used together with another one, which stays as it is.

Source: Chen et al., Data Distillation Can Be Like Vodka: Distilling More Times For Better Quality,
ICLR 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.objectives.combine import wrapped_variants
from dd_jax.synthetic.joined import joined
from dd_jax.types import Objective, PyTree, SyntheticSet


class ConditionedState(NamedTuple):
    """State of `conditioned`: the objective's, and the other set's images and labels."""

    inner: PyTree
    images: jax.Array
    labels: jax.Array


def conditioned(objective: Objective, frozen: SyntheticSet, classes: int) -> Objective:
    """The objective of both sets together; derivatives reach the new one only.

    Args:
      objective: any of class-major sets.
      frozen: images [K n, H, W, C] and labels of the other set, for example of earlier stages.
      classes: K.

    Returns:
      An `Objective` with `ConditionedState` and the traits of the other one.

    Raises:
      ConfigError: the frozen set's images are not as many for every class.

    Example:
      >>> from dd_jax import nets, objectives, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> matching = objectives.mean_embedding(network, pools.fresh_pool(network), batch_size=16)
      >>> both = conditioned(matching, SyntheticSet(jnp.zeros((2, 4, 4, 1)), jnp.eye(2)), 2)
    """
    if frozen.images.shape[0] % classes:
        raise ConfigError(f"the frozen set has {frozen.images.shape[0]} images, which {classes} "
                          "classes cannot share evenly", fix="pass a class-major set")

    def whole(synthetic: SyntheticSet, state: ConditionedState) -> SyntheticSet:
        # The state is no argument of the derivative, so neither are the frozen images.
        return joined(SyntheticSet(state.images, state.labels), synthetic, classes)

    def init(key: jax.Array, synthetic: SyntheticSet) -> ConditionedState:
        state = ConditionedState((), jnp.asarray(frozen.images), jnp.asarray(frozen.labels))
        return state._replace(inner=objective.init(key, whole(synthetic, state)))

    def sample(data, state: ConditionedState, key: jax.Array) -> PyTree:
        return objective.sample(data, state.inner, key)

    def loss(synthetic: SyntheticSet, state: ConditionedState, batch, key: jax.Array):
        return objective.loss(whole(synthetic, state), state.inner, batch, key)

    def advance(synthetic: SyntheticSet, state: ConditionedState, batch, key) -> ConditionedState:
        return state._replace(
            inner=objective.advance(whole(synthetic, state), state.inner, batch, key))

    def embed(state: ConditionedState, images: jax.Array, key: jax.Array) -> jax.Array:
        return objective.embed(state.inner, images, key)

    return objective._replace(
        loss=loss, init=init, sample=sample, advance=advance,
        embed=None if objective.embed is None else embed,
        variants=wrapped_variants((objective,), lambda other: conditioned(other, frozen, classes)),
    )
