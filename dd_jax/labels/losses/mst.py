"""MST-Distill's routing: each image learns from those of several teachers that a gate picks.

    mean over the n teachers m of largest gate of  T^2 KL(softmax(z_m / T) || softmax(z_s / T))

Zero, without slope, where the student agrees with the teachers that were picked; unchanged when
a number is added to a row of logits. The gates are part of what the student is told, so they have
no derivative; `load_balance` keeps a gate from sending all images to one teacher.

No card of the project has this loss; the picks, their mean and T = 4 are those of the public code.

Differs from the official code: `load_balance` is the KL divergence itself, which the code divides
by the number of teachers. The network that computes gates from the student's logits and those that
mask the teachers' features are not here.

Source: Li et al., MST-Distill: Mixture of Specialized Teachers for Cross-Modal Knowledge
Distillation, ACM Multimedia 2025.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.softened import divergence, log_softened, squared


class Committee(NamedTuple):
    """What `mst` is told.

    Attributes:
      logits: [B, M, K], of M teachers.
      gates: [B, M], of which the largest count; probabilities or logits.
    """

    logits: jax.Array
    gates: jax.Array


def mst(
    logits: jax.Array,
    targets: Committee,
    *,
    temperature: float = 4.0,
    teachers: int = 1,
    rescale: bool = True,
) -> jax.Array:
    """The mean of T^2 KL to the teachers of largest gate, see the module.

    Args:
      logits: [B, K].
      targets: a `Committee`.
      temperature: T.
      teachers: n, at most M; equal gates go to the first.
      rescale: whether T^2 is there.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that do not fit, more teachers than there
        are.

    Example:
      >>> told = Committee(jnp.array([[[9.0, 0.0], [1.0, 0.0]]]), jnp.array([[0.2, 0.8]]))
      >>> mst(jnp.array([[1.0, 0.0]]), told).round(5).tolist()
      [0.0]
    """
    (rows, classes), there = logits.shape, targets.logits.shape[1]
    if targets.logits.shape != (rows, there, classes) or targets.gates.shape != (rows, there):
        raise ConfigError(f"the committee's logits are {targets.logits.shape} and its gates "
                          f"{targets.gates.shape}, expected [B, M, K] and [B, M] for a student's "
                          f"{logits.shape}", fix="stack the teachers along axis 1")
    if not 1 <= teachers <= there:
        raise ConfigError(f"teachers is {teachers}, expected 1 to {there}, which there are",
                          fix=f"pass teachers={there}")
    _, picked = jax.lax.top_k(targets.gates, teachers)
    told = jnp.take_along_axis(targets.logits, picked[..., None], axis=1)
    log_s = log_softened(logits, temperature)[:, None]
    apart = divergence(log_softened(told, temperature), log_s)
    return squared(temperature, rescale) * jnp.mean(apart, axis=-1)


def load_balance(gates: jax.Array) -> jax.Array:
    """KL(uniform || mean gates of a batch), which is 0 where teachers are used alike.

    Args:
      gates: [B, M], each row of sum 1.

    Returns:
      [].

    Example:
      >>> abs(load_balance(jnp.array([[0.9, 0.1], [0.1, 0.9]])).item()) < 1e-5
      True
    """
    mean = jnp.mean(gates, axis=0)
    return -math.log(mean.shape[0]) - jnp.mean(jnp.log(mean))


ENTRIES = MappingProxyType({
    "mst": Entry(mst, "Committee",
                 options={"temperature": 4.0, "teachers": 1, "rescale": True},
                 source="Li et al., MST-Distill: Mixture of Specialized Teachers for Cross-Modal "
                        "Knowledge Distillation, ACM Multimedia 2025"),
})
