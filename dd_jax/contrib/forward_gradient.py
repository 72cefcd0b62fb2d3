"""Derivatives in a few numbers, such as learning rates, by forward mode."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from dd_jax.backend import check_mapping, map_over
from dd_jax.errors import ConfigError
from dd_jax.types import PyTree


def forward_gradient(
    loss: Callable[[PyTree], jax.Array], *, how: str = "auto"
) -> Callable[[PyTree], tuple[jax.Array, PyTree]]:
    """The value and the gradient of a scalar function of a few numbers, keeping no step of a loop.

    Each number is carried through the whole computation beside its derivative, so an inner loop of
    any length needs the memory of one step, and as many runs as there are numbers. Reverse mode
    needs one run, and what its adjoint keeps: take it for images.

    Args:
      loss: numbers (a pytree of floating arrays) -> [] floating, differentiable in forward mode:
        any `train.unroll` but by "two_pass".
      how: "map" or "vmap" over the numbers; by backend by default.

    Returns:
      numbers -> (value, gradient like the numbers).

    Raises:
      ConfigError: called with no numbers.

    Example:
      >>> from dd_jax.train import unroll
      >>> def loss(rate):
      ...     return unroll(lambda c, x, r: c * (1 - r), 1.0, jnp.arange(3), rate)
      >>> value, slope = forward_gradient(loss)(0.5)  # of (1 - rate)^3
      >>> float(value), float(slope)
      (0.125, -0.75)
    """
    check_mapping(how)

    def gradient(numbers: PyTree) -> tuple[jax.Array, PyTree]:
        flat, restore = ravel_pytree(numbers)
        if not flat.size:
            raise ConfigError("there are no numbers to differentiate in",
                              fix="pass for example a learning rate")

        def along(tangent: jax.Array):
            return jax.jvp(lambda x: loss(restore(x)), (flat,), (tangent,))

        values, slopes = map_over(along, jnp.eye(flat.size, dtype=flat.dtype), how=how)
        return values[0], restore(slopes)

    return gradient
