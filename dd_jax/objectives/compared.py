"""How far the derivative of an objective is from an exact one, as a metric."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.objectives.combine import wrapped_variants
from dd_jax.types import Objective, SyntheticSet


def compared(objective: Objective, exact: Objective) -> Objective:
    """The objective with the metric "cosine": of its meta-gradient in the images and another's.

    For objectives that differ in how they are differentiated, such as one with the two-pass rule
    and the same one with checkpoints. A step costs both derivatives once more.

    Args:
      objective: what is minimised.
      exact: with the same state and batch.

    Returns:
      An `Objective` with the traits of the first one.
    """

    def loss(synthetic: SyntheticSet, state, batch, key):
        fixed = jax.lax.stop_gradient(synthetic)

        def slope(of: Objective) -> jax.Array:
            def value(images):
                return of.loss(fixed._replace(images=images), state, batch, key)[0]

            return jax.grad(value)(fixed.images)

        a, b = slope(objective), slope(exact)
        norms = jnp.linalg.norm(a) * jnp.linalg.norm(b)
        cosine = jnp.sum(a * b) / jnp.where(norms > 0, norms, 1.0)
        value, metrics = objective.loss(synthetic, state, batch, key)
        return value, {**metrics, "cosine": cosine}

    return objective._replace(
        loss=loss, variants=wrapped_variants((objective,), lambda other: compared(other, exact)))
