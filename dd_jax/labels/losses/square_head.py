"""SquareHead: the student's taps against the teacher's, each as a share of the teacher's size.

  feature sum_l MSE(s_l, t_l) / MSE(t_l, 0) + hard CE(z_s, y) + soft T^2 KL(p_t^T || p_s^T)

MSE is taken over the batch and all entries of a tap, so that a deep tap of small activations counts
as much as an early one of large ones. Student and teacher have taps of the same shapes.

Differs from the official code (from memory; the card gives its name alone): there taps are those of
a transformer's blocks and padded tokens are left out; weights of the three terms differ from task
to task, and are all 1 here. Each image has its share of a tap's error over the batch's mean size.

Source: Kurtic et al., Sparse Fine-tuning for Inference Acceleration of Large Language Models, 2023.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.terms import hard_term, soft_term
from dd_jax.labels.losses.told import Told, require_same_shape
from dd_jax.types import Outputs

_SMALLEST = 1e-12
_FIX = "give student and teacher the same architecture, or a loss of features such as vkd"


def normalised_taps(taps: tuple[jax.Array, ...], teacher: tuple[jax.Array, ...]) -> jax.Array:
    """sum_l mean_entries (s_l - t_l)^2 / mean_{batch, entries} t_l^2, [B].

    Args:
      taps: of the student, a tuple of [B, ...].
      teacher: of the teacher, the same shapes; by a tap of zeros nothing is divided.

    Raises:
      ConfigError: no taps, another number of them, or shapes that differ.

    Example:
      >>> normalised_taps((jnp.zeros((2, 3)),), (jnp.full((2, 3), 7.0),)).tolist()
      [1.0, 1.0]
    """
    if not taps or len(taps) != len(teacher):
        raise ConfigError(f"the student has {len(taps)} taps and the teacher {len(teacher)}, "
                          "expected as many, and at least one", fix=_FIX)
    total = jnp.zeros(())
    for place, (ours, theirs) in enumerate(zip(taps, teacher)):
        require_same_shape(f"taps {place}", ours, theirs, fix=_FIX)
        axes = tuple(range(1, ours.ndim))
        size = jnp.mean(theirs**2)
        size = jnp.where(size > _SMALLEST, size, 1.0)
        total = total + jnp.mean((ours - theirs) ** 2, axis=axes) / size
    return total


def square_head(
    outputs: Outputs, told: Told, *, feature: float = 1.0, hard: float = 1.0, soft: float = 1.0,
    temperature: float = 1.0,
) -> jax.Array:
    """SquareHead's whole loss, [B].

    Raises:
      ConfigError: taps or classes that differ.

    Example:
      >>> z, f, taps = jnp.zeros((1, 2)), jnp.ones((1, 3)), (jnp.ones((1, 4)),)
      >>> told = Told(jnp.array([[0.5, 0.5]]), z, f, taps)
      >>> square_head(Outputs(z, f, taps), told).round(4).tolist()
      [0.69...]
    """
    return (feature * normalised_taps(outputs.taps, told.taps)
            + hard * hard_term(outputs.logits, told.labels)
            + soft * soft_term(outputs.logits, told.logits, temperature))


ENTRIES = {
    "square_head": Entry(
        square_head, targets="Told", of="outputs", whole=True,
        options={"feature": 1.0, "hard": 1.0, "soft": 1.0, "temperature": 1.0},
        checks={"feature": at_least_zero, "hard": at_least_zero, "soft": at_least_zero,
                "temperature": above_zero("logits are divided by it", 1.0)},
        source="Kurtic et al. 2023, Sparse Fine-tuning"),
}
