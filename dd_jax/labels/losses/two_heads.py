"""Dual-Head KD: labels teach one head, a teacher's logits the other, on the same features.

  hard CE(z_1, y) + soft T^2 sum_c KL(Bern(1/2) || Bern(sigmoid((z_2c - t_c) / T)))

The second term is T^2 sum_c log cosh((z_2c - t_c) / (2 T)): it looks at differences of logits, not
of probabilities, which is what a head that has to fit labels, too, cannot follow. The test takes
the first head alone. The second trains along: `nets.extras.second_head` beside the student. Where
the two gradients of the shared weights disagree, `labels.rules.aligned_heads` turns the second.

Differs from the official code: as `losses.dual_head`; of its two second heads only the linear one
is here, for the other has a dropout, and networks draw nothing.

Source: Yang et al., Dual-Head Knowledge Distillation: Enhancing Logits Utilization with an
Auxiliary Head, 2024.
"""

from __future__ import annotations

import jax

from dd_jax.labels.losses.dual_head import binary_kl_norm
from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.terms import hard_term
from dd_jax.labels.losses.told import Told, extra_of
from dd_jax.nets.extended import ExtendedOutputs


def dual_head(
    outputs: ExtendedOutputs, told: Told, *, temperature: float = 2.0, hard: float = 1.0,
    soft: float = 1.0,
) -> jax.Array:
    """Dual-Head's whole loss, [B]; `outputs.extra` are the second head's logits.

    Raises:
      ConfigError: a teacher of other classes, a network without a second head.

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.zeros((1, 2))
      >>> told = Told(jnp.array([[0.5, 0.5]]), z + 3, z)
      >>> dual_head(ExtendedOutputs(z, z, extra=z + 3), told).round(4).tolist()
      [0.69...]
    """
    second = extra_of(outputs, of="second_head")
    return (hard * hard_term(outputs.logits, told.labels)
            + soft * binary_kl_norm(second, told.logits, temperature=temperature))


ENTRIES = {
    "dual_head": Entry(
        dual_head, targets="Told", of="outputs",
        options={"temperature": 2.0, "hard": 1.0, "soft": 1.0},
        checks={"temperature": above_zero("logits are divided by it", 2.0), "hard": at_least_zero,
                "soft": at_least_zero},
        source="Yang et al. 2024, Dual-Head Knowledge Distillation"),
}
