"""Whether the learning rates of a set are those that a student needs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError


def check_student_rates(rates: jax.Array | None, steps: int) -> None:
    """Refuses rates that a student of so many steps cannot take, before they are indexed.

    Args:
      rates: of the set: [] one for every step, or [T] one for each.
      steps: of the student.

    Raises:
      ConfigError: no rate, or as many as the student has no steps.

    Example:
      >>> check_student_rates(jnp.float32(0.1), 50)
    """
    if rates is None:
        raise ConfigError("the set has no learning rate, which is the student's",
                          fix="pass rate=0.01, or start from a set with learning_rate=0.01")
    if jnp.ndim(rates) and jnp.shape(rates)[0] != steps:
        raise ConfigError(f"the set has {jnp.shape(rates)[0]} learning rates for {steps} steps",
                          fix=f"start from a set with one rate or with {steps}")
