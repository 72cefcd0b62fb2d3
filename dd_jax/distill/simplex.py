"""Labels that stay probabilities while an optimiser moves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError


def kept_probabilities() -> optax.GradientTransformation:
    """Changes every update so that rows are cut to 0..1 and divided by their sum afterwards.

    The last one of a chain. A row without anything left becomes uniform.

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

    def kept(updates, params):
        if params is None:
            raise ConfigError("kept_probabilities got no parameters",
                              fix="call update with params")

        def one(u, p):
            cut = jnp.clip(p + u, 0.0, 1.0)
            total = jnp.sum(cut, axis=-1, keepdims=True)
            shares = jnp.where(total > 0, cut / jnp.where(total > 0, total, 1.0),
                               1.0 / cut.shape[-1])
            return shares - p

        return jax.tree.map(one, updates, params)

    return optax.stateless(kept)
