"""Cross-entropy and squared errors, the losses that need no teacher.

    cross_entropy          -sum_k t_k log softmax(z)_k      t probabilities, or free labels
    integer_cross_entropy  -log softmax(z)_y                y a class number
    squared_error          0.5 sum_k (z_k - t_k)^2          t any numbers, also a teacher's logits
    mean_squared_error     mean_k (z_k - t_k)^2
    mse                    the latter against a teacher's logits, perhaps of centred logits
"""

from __future__ import annotations

from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax

from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.targets import require_logits


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-sum_k t_k log softmax(logits)_k; the targets [B, K] are probabilities or free labels.

    Example:
      >>> cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.5, 0.5]])).round(4).tolist()
      [0.69...]
    """
    return optax.losses.softmax_cross_entropy(logits, targets)


def integer_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-log softmax(logits) of the classes that the targets [B] name.

    Example:
      >>> integer_cross_entropy(jnp.zeros((1, 2)), jnp.array([1])).round(4).tolist()
      [0.69...]
    """
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)


def squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Half the squared distance to the targets [B, K], summed over classes.

    Example:
      >>> squared_error(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))).tolist()
      [2.5]
    """
    return 0.5 * jnp.sum((logits - targets) ** 2, axis=-1)


def mean_squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The squared distance to the targets [B, K], averaged over classes.

    Example:
      >>> mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))).tolist()
      [2.5]
    """
    return jnp.mean((logits - targets) ** 2, axis=-1)


def mse(logits: jax.Array, targets: jax.Array, *, centred: bool = False) -> jax.Array:
    """The mean squared distance to a teacher's logits.

    Args:
      logits: [B, K].
      targets: [B, K], the teacher's logits.
      centred: whether each row's mean is taken off both, as in the limit of KL for T -> infinity:
        T^2 KL -> mean_k (difference of centred logits)^2 / 2.

    Returns:
      [B].

    Raises:
      ConfigError: shapes that are not equal.

    Example:
      >>> mse(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2)), centred=True).tolist()
      [0.25]
    """
    require_logits(logits, targets)
    gap = logits - targets
    return jnp.mean((gap - centred * jnp.mean(gap, axis=-1, keepdims=True)) ** 2, axis=-1)


ENTRIES = MappingProxyType({
    "cross_entropy": Entry(cross_entropy, "probabilities"),
    "free_cross_entropy": Entry(cross_entropy, "free"),
    "integer_cross_entropy": Entry(integer_cross_entropy, "classes"),
    "squared_error": Entry(squared_error, "free"),
    "mean_squared_error": Entry(mean_squared_error, "free"),
    "mse": Entry(mse, "logits", options={"centred": False},
                 source="Kim et al., Comparing Kullback-Leibler Divergence and Mean Squared Error "
                        "Loss in Knowledge Distillation, IJCAI 2021"),
})
