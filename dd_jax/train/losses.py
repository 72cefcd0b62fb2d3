"""Losses of a network's outputs against what it is told, one number for each image.

Each is a plain function, loss(logits [B, K], targets) -> [B]. Names are for files and the command
line alone; code passes the functions.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError
from dd_jax.types import PyTree

Loss = Callable[[jax.Array, PyTree], jax.Array]


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


LOSSES = MappingProxyType({
    "cross_entropy": cross_entropy,
    "integer_cross_entropy": integer_cross_entropy,
    "squared_error": squared_error,
    "mean_squared_error": mean_squared_error,
})


def require_loss(loss: object) -> None:
    """Refuses what is no function, such as the name of a loss.

    Raises:
      ConfigError: as said.
    """
    if not callable(loss):
        raise ConfigError(f"loss is {loss!r}, expected a function (logits, targets) -> [B]",
                          fix="pass for example train.cross_entropy; train.LOSSES has them by name")
