"""Dual-Head KD: labels teach one head, a teacher's logits the other, on the same features.

  hard CE(z_1, y) + soft T^2 sum_c KL(Bern(1/2) || Bern(sigmoid((z_2c - t_c) / T)))

The second term is T^2 sum_c log cosh((z_2c - t_c) / (2 T)): it looks at differences of logits, not
of probabilities, which is what a head that has to fit labels, too, cannot follow. The test takes
the first head alone. The second trains along: `nets.extras.second_head` beside the student. Where
the two gradients of the shared weights disagree, `labels.rules.aligned_heads` turns the second.

Differs from the official code: sigmoids are not clipped, since log cosh needs none. Of its two
second heads only the linear one is here; the other has a dropout, and networks draw nothing.

Source: Yang et al., Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an
Auxiliary Head, 2024.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.terms import hard_term
from dd_jax.labels.losses.told import Told, extra_of, require_same_shape
from dd_jax.nets.extended import ExtendedOutputs

_CHECKS = {"temperature": above_zero("logits are divided by it", 2.0), "hard": at_least_zero,
           "soft": at_least_zero}


def binary_kl_norm(
    logits: jax.Array, teacher: jax.Array, *, temperature: float = 2.0
) -> jax.Array:
    """T^2 sum_c log cosh((s_c - t_c) / (2 T)), [B].

    Raises:
      ConfigError: a teacher of other classes.

    Example:
      >>> binary_kl_norm(jnp.ones((1, 2)), jnp.ones((1, 2))).tolist()
      [0.0]
    """
    require_same_shape("logits", logits, teacher, fix="pass a teacher of the same classes")
    half = (logits - teacher) / (2.0 * temperature)
    return temperature**2 * jnp.sum(jnp.logaddexp(half, -half) - jnp.log(2.0), axis=-1)


def binary_kl(logits: jax.Array, teacher: jax.Array, *, temperature: float = 2.0) -> jax.Array:
    """T^2 sum_c KL(Bern(sigmoid(t_c / T)) || Bern(sigmoid(s_c / T))), [B].

    Raises:
      ConfigError: a teacher of other classes.

    Example:
      >>> binary_kl(jnp.ones((1, 2)), jnp.ones((1, 2))).tolist()
      [0.0]
    """
    require_same_shape("logits", logits, teacher, fix="pass a teacher of the same classes")
    s, t = logits / temperature, teacher / temperature
    sides = (jax.nn.sigmoid(way * t) * (jax.nn.log_sigmoid(way * t) - jax.nn.log_sigmoid(way * s))
             for way in (1, -1))
    return temperature**2 * jnp.sum(sum(sides), axis=-1)


def dual_head(
    outputs: ExtendedOutputs, told: Told, *, temperature: float = 2.0, hard: float = 1.0,
    soft: float = 1.0,
) -> jax.Array:
    """Dual-Head's whole loss, [B]; `outputs.extra` are the second head's logits.

    Raises:
      ConfigError: a teacher of other classes, a network without a second head.

    Example:
      >>> z = jnp.zeros((1, 2))
      >>> told = Told(jnp.array([[0.5, 0.5]]), z + 3, z)
      >>> dual_head(ExtendedOutputs(z, z, extra=z + 3), told).round(4).tolist()
      [0.69...]
    """
    second = extra_of(outputs, of="second_head")
    return (hard * hard_term(outputs.logits, told.labels)
            + soft * binary_kl_norm(second, told.logits, temperature=temperature))


_SOURCE = "Yang et al. 2024, Dual-Head Knowledge Distillation"
ENTRIES = {
    "binary_kl_norm": Entry(binary_kl_norm, targets="logits", options={"temperature": 2.0},
                            checks={"temperature": _CHECKS["temperature"]}, source=_SOURCE),
    "binary_kl": Entry(binary_kl, targets="logits", options={"temperature": 2.0},
                       checks={"temperature": _CHECKS["temperature"]}, source=_SOURCE),
    "dual_head": Entry(dual_head, targets="Told", of="outputs",
                       options={"temperature": 2.0, "hard": 1.0, "soft": 1.0}, checks=_CHECKS,
                       source=_SOURCE),
}
