"""What most losses are made of: softened log-probabilities and divergences of two of them.

Everything stays in logarithms: softmax(+-80) is 0 in float32, its logarithm is not.
"""

from __future__ import annotations

import math
import numbers

import jax
import jax.numpy as jnp

from dd_jax.errors import require_above_zero


def log_softened(logits: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """log softmax(logits / temperature), [B, K].

    Raises:
      ConfigError: a temperature that is a number and not above 0.

    Example:
      >>> log_softened(jnp.zeros((1, 2)), 4.0).round(4).tolist()
      [[-0.69..., -0.69...]]
    """
    if isinstance(temperature, numbers.Real):
        require_above_zero("temperature", temperature, why="logits are divided by it", example=4.0)
    return jax.nn.log_softmax(logits / temperature, axis=-1)


def divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) = sum_k p_k (log p_k - log q_k), [B], of log-probabilities [B, K].

    Example:
      >>> log_p = jnp.log(jnp.array([[0.5, 0.5]]))
      >>> divergence(log_p, log_p).tolist()
      [0.0]
    """
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def log_mixture(log_p: jax.Array, log_q: jax.Array, share: float) -> jax.Array:
    """log(share p + (1 - share) q), [B, K], of log-probabilities; the share is a plain number.

    Example:
      >>> log_p, log_q = jnp.log(jnp.array([[0.8, 0.2]])), jnp.log(jnp.array([[0.4, 0.6]]))
      >>> jnp.exp(log_mixture(log_p, log_q, 0.5)).round(2).tolist()
      [[0.6..., 0.4...]]
    """
    if share in (0, 1):
        return log_p if share else log_q
    return jnp.logaddexp(math.log(share) + log_p, math.log1p(-share) + log_q)


def entropy(log_p: jax.Array) -> jax.Array:
    """-sum_k p_k log p_k, [B], of log-probabilities [B, K].

    Example:
      >>> entropy(jnp.log(jnp.array([[0.5, 0.5]]))).round(4).tolist()
      [0.69...]
    """
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def squared(temperature: float, rescale: bool) -> float:
    """T^2 where a loss is rescaled, so that its slope does not fall with T; else 1."""
    return temperature**2 if rescale else 1.0
