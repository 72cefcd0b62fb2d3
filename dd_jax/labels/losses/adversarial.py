"""MEAL V2: an ensemble's mean probabilities, and a discriminator of its logits.

  CE(p_bar, z_s) + discriminator D,   p_bar = mean_m softmax(z_t,m),
  D = mean of BCE(d(z_s), (1, 0)) and BCE(d(z_t), (0, 1)),   z_t = mean_m z_t,m

d are three small layers that train along: `nets.extras.discriminator` beside the student. It always
learns to tell the two apart. With `adversarial` the student gets D's gradient with its sign turned
and learns to look like the teachers, which is what the paper means; without, the student gets it as
it is, as in the official code, and helps to be told apart.

Differs from the official code: the sign, unless adversarial=False; hidden layers of fewer than 2
units, which C / 64 is for few classes, have 2.

Source: Shen, Savvides, MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet
without Tricks, 2020.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import optax

from dd_jax.labels.losses.record import Entry, at_least_zero
from dd_jax.labels.losses.terms import hard_term
from dd_jax.labels.losses.told import Ensemble, extra_of, require_same_shape
from dd_jax.nets.extended import ExtendedOutputs
from dd_jax.nets.extras import discriminate
from dd_jax.types import PyTree


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gradient_reversal(x: jax.Array, factor: float = 1.0) -> jax.Array:
    """x itself, whose gradient is -factor times what comes back.

    Example:
      >>> jax.grad(lambda x: 3.0 * gradient_reversal(x, 2.0))(1.0).tolist()
      -6.0
    """
    return x


gradient_reversal.defvjp(lambda x, factor: (x, None),
                         lambda factor, _, cotangent: (-factor * cotangent,))


def told_apart(
    params: PyTree, logits: jax.Array, teacher: jax.Array, *, rectified: bool = True
) -> jax.Array:
    """D of each image: how badly the discriminator tells student and teachers apart, [B].

    Args:
      params: of a `nets.extras.discriminator`.
      logits, teacher: [B, K].
      rectified: whether its last layer has a ReLU.

    Raises:
      ConfigError: a teacher of other classes.

    Example:
      >>> zeros = tuple({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)} for _ in range(3))
      >>> told_apart(zeros, jnp.ones((1, 2)), jnp.ones((1, 2))).round(4).tolist()
      [0.69...]
    """
    require_same_shape("logits", logits, teacher, fix="pass a teacher of the same classes")
    sides = []
    for z, truth in ((logits, (1.0, 0.0)), (teacher, (0.0, 1.0))):
        said = discriminate(params, z, rectified=rectified)
        truth = jnp.broadcast_to(jnp.asarray(truth, said.dtype), said.shape)
        sides.append(jnp.mean(optax.losses.sigmoid_binary_cross_entropy(said, truth), axis=-1))
    return 0.5 * (sides[0] + sides[1])


def meal_v2(
    outputs: ExtendedOutputs, told: Ensemble, *, discriminator: float = 1.0,
    adversarial: bool = True, rectified: bool = True,
) -> jax.Array:
    """MEAL V2's whole loss, [B]; `outputs.extra` are the discriminator's parameters.

    Args:
      outputs: of the student beside its discriminator.
      told: by the ensemble.
      discriminator: weight of D.
      adversarial: whether the student gets D's gradient with its sign turned.
      rectified: whether the discriminator's last layer has a ReLU.

    Raises:
      ConfigError: teachers of other classes, a network without a discriminator.

    Example:
      >>> zeros = tuple({"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)} for _ in range(3))
      >>> z = jnp.zeros((1, 2))
      >>> told = Ensemble(jnp.full((1, 2), 0.5), z)
      >>> meal_v2(ExtendedOutputs(z, z, extra=zeros), told).round(4).tolist()
      [1.38...]
    """
    params = extra_of(outputs, of="discriminator")
    seen = gradient_reversal(outputs.logits, 1.0) if adversarial else outputs.logits
    return (hard_term(outputs.logits, told.probabilities)
            + discriminator * told_apart(params, seen, told.logits, rectified=rectified))


ENTRIES = {
    "meal_v2": Entry(
        meal_v2, targets="Ensemble", of="outputs",
        options={"discriminator": 1.0, "adversarial": True, "rectified": True},
        checks={"discriminator": at_least_zero},
        source="Shen, Savvides 2020, MEAL V2"),
}
