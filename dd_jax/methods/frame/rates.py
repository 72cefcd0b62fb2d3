"""A start whose student has a learning rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.types import RealData, SyntheticSet


def with_rate(
    start: Callable[[RealData, jax.Array], SyntheticSet], rate: Any
) -> Callable[[RealData, jax.Array], SyntheticSet]:
    """The start with a learning rate of the student, or with one for each of its steps."""

    def started(data: RealData, key: jax.Array) -> SyntheticSet:
        return start(data, key)._replace(learning_rate=jnp.asarray(rate, jnp.float32))

    return started
