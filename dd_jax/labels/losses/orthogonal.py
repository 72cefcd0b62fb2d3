"""VkD: the student's features, turned by an orthonormal map, against the teacher's normalised ones.

  alpha mean_p SmoothL1(A f_s - LN(f_t)) + hard CE(z_s, y) + soft KL(p_t || p_s)

A has orthonormal columns (rows where the teacher is the narrower), so that the map can neither
shrink nor invent what the student knows; LN is layer normalisation without scale and shift, eps
1e-5. A trains along: `nets.extras.orthogonal_projection` beside the student.

Differs from the official code: A is Cayley's map of a skew matrix, where PyTorch's parametrisation
takes its exponential by default; both give every rotation near the identity. Features are those of
the last dense layer's input, pooled where the network pools them. Whitening in the place of LN,
which the paper has for generation, is not here.

Source: Miles, Elezi, Deng, V_kD: Improving Knowledge Distillation using Orthogonal Projections,
CVPR 2024.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, above_zero, at_least_zero
from dd_jax.labels.losses.terms import hard_term, soft_term
from dd_jax.labels.losses.told import Told, extra_of, require_same_shape
from dd_jax.nets.extended import ExtendedOutputs

_EPS = 1e-5


def layer_normalised(x: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-5) along the last axis.

    Example:
      >>> layer_normalised(jnp.array([[1.0, 3.0]])).round(3).tolist()
      [[-1.0, 1.0]]
    """
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + _EPS)


def smooth_l1(difference: jax.Array) -> jax.Array:
    """d^2 / 2 within 1 of zero and |d| - 1/2 beyond, averaged over the last axis.

    Example:
      >>> smooth_l1(jnp.array([[0.0, 2.0]])).tolist()
      [0.75]
    """
    size = jnp.abs(difference)
    each = jnp.where(size < 1.0, 0.5 * difference**2, size - 0.5)
    return jnp.mean(each, axis=-1)


def projected_features(projected: jax.Array, teacher: jax.Array) -> jax.Array:
    """VkD's term alone, [B].

    Args:
      projected: A f_s, [B, P_t].
      teacher: f_t, [B, P_t].

    Raises:
      ConfigError: widths that differ.

    Example:
      >>> f = jnp.array([[1.0, 3.0]])
      >>> projected_features(layer_normalised(f), 5 * f + 1).round(6).tolist()
      [0.0]
    """
    require_same_shape("projected features", projected, teacher,
                       fix="build orthogonal_projection(student's width, teacher's width)")
    return smooth_l1(projected - layer_normalised(teacher))


def vkd(
    outputs: ExtendedOutputs, told: Told, *, alpha: float = 1.0, hard: float = 1.0,
    soft: float = 1.0, temperature: float = 1.0,
) -> jax.Array:
    """VkD's whole loss, [B]; `outputs.extra` are projected features.

    Raises:
      ConfigError: widths or classes that differ, a network without a projection.

    Example:
      >>> z, f = jnp.zeros((1, 2)), jnp.array([[-1.0, 1.0]])
      >>> told = Told(jnp.array([[0.5, 0.5]]), z, f)
      >>> vkd(ExtendedOutputs(z, f, extra=f), told).round(4).tolist()
      [0.69...]
    """
    projected = extra_of(outputs, of="orthogonal_projection")
    return (alpha * projected_features(projected, told.features)
            + hard * hard_term(outputs.logits, told.labels)
            + soft * soft_term(outputs.logits, told.logits, temperature))


ENTRIES = {
    "vkd": Entry(
        vkd, targets="Told", of="outputs",
        options={"alpha": 1.0, "hard": 1.0, "soft": 1.0, "temperature": 1.0},
        checks={"alpha": at_least_zero, "hard": at_least_zero, "soft": at_least_zero,
                "temperature": above_zero("logits are divided by it", 1.0)},
        source="Miles, Elezi, Deng 2024, V_kD"),
}
