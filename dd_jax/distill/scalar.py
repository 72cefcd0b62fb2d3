"""What objectives return has to be scalar."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from dd_jax.errors import ConfigError


def require_scalar(
    name: str, value: Any, *, fix: str = "reduce it with jnp.sum or jnp.mean"
) -> None:
    """Refuses what has a shape, at trace time.

    Args:
      name: of the value: "the objective's loss".
      value: an array or a number.
      fix: what to do.

    Raises:
      ConfigError: as said.

    Example:
      >>> require_scalar("the objective's loss", jnp.zeros(()))
    """
    if jnp.shape(value) != ():
        raise ConfigError(f"{name} has shape {jnp.shape(value)}, expected a scalar", fix=fix)
