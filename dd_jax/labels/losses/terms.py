"""The terms that several losses share: against labels, against a teacher's logits, norms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.softened import divergence, log_softened
from dd_jax.labels.losses.told import require_same_shape

SMALLEST = 1e-12


def hard_term(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-sum_k y_k log softmax(logits)_k, [B]; labels [B, K].

    Raises:
      ConfigError: labels of another shape, such as class numbers.

    Example:
      >>> hard_term(jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]])).round(4).tolist()
      [0.69...]
    """
    require_same_shape("logits and labels", logits, labels, fix="pass labels [B, K]")
    return -jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1)


def soft_term(logits: jax.Array, teacher: jax.Array, temperature: float = 1.0) -> jax.Array:
    """T^2 KL(softmax(teacher / T) || softmax(logits / T)), [B].

    Raises:
      ConfigError: a teacher of other classes.

    Example:
      >>> soft_term(jnp.ones((1, 2)), jnp.zeros((1, 2))).tolist()
      [0.0]
    """
    require_same_shape("logits", logits, teacher, fix="pass a teacher of the same classes")
    ours, theirs = (log_softened(z, temperature) for z in (logits, teacher))
    return temperature**2 * divergence(theirs, ours)


def norm(x: jax.Array) -> jax.Array:
    """The length of the last axis, at least 1e-12; where it is less it has no slope.

    Example:
      >>> norm(jnp.array([[3.0, 4.0]])).tolist()
      [5.0]
    """
    return jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1), SMALLEST**2))


def one_over(length: jax.Array) -> jax.Array:
    """1 / a length of `norm`; 0 for the least, so that a feature of zeros has no endless slope.

    Example:
      >>> one_over(norm(jnp.array([[2.0], [0.0]]))).tolist()
      [0.5, 0.0]
    """
    return jnp.where(length > SMALLEST, 1.0 / length, 0.0)


def direction(x: jax.Array) -> jax.Array:
    """x / ||x|| along the last axis; 0, without slope, where x is.

    Example:
      >>> direction(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    return x * one_over(norm(x))[..., None]
