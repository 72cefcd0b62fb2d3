"""KD++: features grow along the direction of their own class's mean.

  e_c = mu_c / ||mu_c||, mu_c the teacher's mean feature of class c over the real set,
  nd  = 1 - <f_s, e_y> / max(||f_s||, ||f_t||)

While the student's feature is the shorter one its length along e_y pays; beyond, it is 1 - cosine.
The whole loss is  hard CE(z_s, y) + soft T^2 KL(p_t^T || p_s^T) + direction nd.

Differs from the official code: the weight of KL does not rise over the first epochs, since a loss
knows no epoch; of a mixed label the mean is that of its classes' means, weighted by the label.

Source: Wang et al., Improving Knowledge Distillation via Regularizing Feature Norm and Direction,
2023.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.terms import direction, hard_term, norm, one_over, soft_term
from dd_jax.labels.losses.told import Told, means_of, require_same_shape
from dd_jax.types import Outputs


def norm_and_direction(features: jax.Array, teacher: jax.Array, means: jax.Array) -> jax.Array:
    """1 - <f_s, mu / ||mu||> / max(||f_s||, ||f_t||), [B].

    Args:
      features: f_s, [B, P].
      teacher: f_t, [B, P].
      means: mu, [B, P], of each image's own class.

    Raises:
      ConfigError: widths that differ.

    Example:
      >>> f = jnp.array([[3.0, 0.0]])
      >>> norm_and_direction(f, f, 2 * f).tolist(), norm_and_direction(0.5 * f, f, f).tolist()
      ([0.0], [0.5])
    """
    fix = "project the student's features: nets.extras.linear_projection"
    require_same_shape("features", features, teacher, fix=fix)
    require_same_shape("features and class means", features, means, fix=fix)
    along = jnp.sum(features * direction(means), axis=-1)
    return 1.0 - along * one_over(jnp.maximum(norm(features), norm(teacher)))


def kd_plus_plus(
    outputs: Outputs, told: Told, *, direction: float = 2.0, hard: float = 1.0, soft: float = 1.0,
    temperature: float = 4.0,
) -> jax.Array:
    """KD++'s whole loss, [B]; of an extended network on its projected features.

    Raises:
      ConfigError: widths or classes that differ, targets without means.

    Example:
      >>> f, z = jnp.array([[3.0, 0.0]]), jnp.zeros((1, 2))
      >>> told = Told(jnp.array([[0.5, 0.5]]), z, f, means=f)
      >>> kd_plus_plus(Outputs(z, f), told).round(4).tolist()
      [0.69...]
    """
    features = getattr(outputs, "extra", outputs.features)
    term = norm_and_direction(features, told.features, means_of(told))
    return (hard * hard_term(outputs.logits, told.labels) + direction * term
            + soft * soft_term(outputs.logits, told.logits, temperature))


ENTRIES = {
    "kd_plus_plus": Entry(
        kd_plus_plus, targets="Told", of="outputs",
        options={"direction": 2.0, "hard": 1.0, "soft": 1.0, "temperature": 4.0},
        checks={"direction": at_least_zero, "hard": at_least_zero, "soft": at_least_zero,
                "temperature": above_zero("logits are divided by it", 4.0)},
        source="Wang et al. 2023, Regularizing Feature Norm and Direction"),
}
