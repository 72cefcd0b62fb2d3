"""Labels that stay probabilities while an optimizer moves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax.transforms.pixel_space import projected


def kept_probabilities() -> optax.GradientTransformation:
    """Changes every update so that rows are cut to 0..1 and divided by their sum afterwards.

    The last one of a chain. A row without anything left becomes uniform. Sums are one up to
    rounding, see `projected`; no entry falls below 0.

    Returns:
      An optax transformation for labels [M, K].

    Raises:
      ConfigError: when it is called without the parameters.

    Example:
      >>> kept, labels = kept_probabilities(), jnp.array([[0.5, 0.5]])
      >>> updates, _ = kept.update(jnp.array([[2.5, -1.0]]), kept.init(labels), labels)
      >>> (labels + updates).tolist()
      [[1.0, 0.0]]
    """

    def onto(labels: jax.Array) -> jax.Array:
        cut = jnp.clip(labels, 0.0, 1.0)
        total = jnp.sum(cut, axis=-1, keepdims=True)
        some = total > 0
        return jnp.where(some, cut / jnp.where(some, total, 1.0), 1.0 / cut.shape[-1])

    return projected("kept_probabilities", onto)
