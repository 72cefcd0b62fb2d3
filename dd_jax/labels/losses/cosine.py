"""VL2V's cosine: features along the teacher's own of the image and along its class's anchor.

  hard CE(z_s, y) + image (1 - cos(g(f_s), f_t)) + anchor (1 - cos(g(f_s), m_y))

g is a linear projection to the teacher's width that trains along, or nothing where widths agree.

Differs from the paper (from memory; the card gives its name alone): its teacher is a model of
language and images, whose embedding of a class's name is the anchor m_y and also the classifier;
here an anchor is any row for each class that the caller has, by default the teacher's mean features
of the class, and the student keeps its own head, taught by cross-entropy. The constant 1 is added
to each term, so that agreement is 0.

Source: Addepalli et al., Leveraging Vision-Language Models for Improving Domain Generalization in
Image Classification, CVPR 2024.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.terms import direction, hard_term
from dd_jax.labels.losses.told import Told, means_of, require_same_shape
from dd_jax.types import Outputs


def cosine_distance(features: jax.Array, others: jax.Array) -> jax.Array:
    """1 - <a, b> / (||a|| ||b||), [B]; 1 where one of them is zero.

    Raises:
      ConfigError: widths that differ.

    Example:
      >>> cosine_distance(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])).tolist()
      [1.0]
    """
    require_same_shape("features", features, others,
                       fix="project the student's features: nets.extras.linear_projection")
    return 1.0 - jnp.sum(direction(features) * direction(others), axis=-1)


def vl2v(
    outputs: Outputs, told: Told, *, image: float = 0.5, anchor: float = 0.5, hard: float = 1.0
) -> jax.Array:
    """VL2V's whole loss, [B]; of an extended network on its projected features.

    Raises:
      ConfigError: widths that differ, targets without means.

    Example:
      >>> z, f = jnp.zeros((1, 2)), jnp.ones((1, 2))
      >>> told = Told(jnp.array([[0.5, 0.5]]), z, 2 * f, means=3 * f)
      >>> vl2v(Outputs(z, f), told).round(4).tolist()
      [0.69...]
    """
    features = getattr(outputs, "extra", outputs.features)
    return (hard * hard_term(outputs.logits, told.labels)
            + image * cosine_distance(features, told.features)
            + anchor * cosine_distance(features, means_of(told)))


ENTRIES = {
    "vl2v": Entry(
        vl2v, targets="Told", of="outputs",
        options={"image": 0.5, "anchor": 0.5, "hard": 1.0},
        checks={"image": at_least_zero, "anchor": at_least_zero, "hard": at_least_zero},
        source="Addepalli et al. 2024, VL2V-ADiP"),
}
