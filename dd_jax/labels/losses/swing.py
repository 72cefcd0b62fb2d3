"""Swing distillation: the more private an image, the hotter and noisier the teacher's word on it.

    T_i = low + (high - low) s_i,    s_i in 0..1 how likely image i is private
    loss_i = KL(softmax(z_t / T_i) || softmax(z_s / T_i)), times T_i^2 where it is rescaled

and, before that, `shielded` teacher's probabilities: noise of Laplace's distribution, times s_i,
cut off at 0 and normalised. Zero, without slope, where both agree; unchanged when a number is added
to a row of logits; `kl` where all s_i are equal.

No card of the project has this loss and no code was found. That temperatures follow the privacy of
each token and that noise is put into soft targets is the paper's; the straight line between two
temperatures, its ends and the kind of noise are ours. The paper's tokens are images here, and it
judges privacy by language models, which are not here: s_i is given.

Source: Li et al., Swing Distillation: A Privacy-Preserving Knowledge Distillation Framework, 2022.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import require_above_zero, require_at_least_zero
from dd_jax.labels.losses.record import Entry, above_zero
from dd_jax.labels.losses.softened import divergence, log_softened
from dd_jax.labels.losses.targets import require_logits


class Private(NamedTuple):
    """What `swing` is told.

    Attributes:
      logits: [B, K], the teacher's; logarithms of `shielded` probabilities are some.
      privacy: [B] float, s in 0..1.
    """

    logits: jax.Array
    privacy: jax.Array


def swing(
    logits: jax.Array,
    targets: Private,
    *,
    low: float = 1.0,
    high: float = 8.0,
    rescale: bool = True,
) -> jax.Array:
    """KL at a temperature that follows each image's privacy, see the module.

    Args:
      logits: [B, K].
      targets: a `Private`.
      low, high: temperatures of an image that is not private and of one that is, above 0.
      rescale: whether T_i^2 is there.

    Returns:
      [B].

    Raises:
      ConfigError: a temperature that cannot be, shapes that are not equal.

    Example:
      >>> told = Private(jnp.array([[3.0, 2.0]]), jnp.array([0.5]))
      >>> swing(jnp.array([[1.0, 0.0]]), told, low=2.0, high=6.0).round(5).tolist()
      [0.0]
    """
    require_logits(logits, targets.logits)
    for name, value in dict(low=low, high=high).items():
        require_above_zero(name, value, why="logits are divided by it", example=1.0)
    heat = low + (high - low) * targets.privacy
    log_t, log_s = (log_softened(z, heat[:, None]) for z in (targets.logits, logits))
    return (heat**2 if rescale else 1.0) * divergence(log_t, log_s)


def shielded(
    key: jax.Array, probabilities: jax.Array, privacy: jax.Array, *, scale: float = 0.1
) -> jax.Array:
    """A teacher's probabilities with noise where an image is private.

    Args:
      key: PRNG key.
      probabilities: [B, K].
      privacy: [B], s in 0..1.
      scale: of Laplace's distribution, at least 0.

    Returns:
      [B, K] probabilities; uniform where the noise left nothing.

    Raises:
      ConfigError: a scale below 0.

    Example:
      >>> plain = jnp.array([[0.75, 0.25]])
      >>> shielded(jax.random.key(0), plain, jnp.zeros(1)).tolist()
      [[0.75, 0.25]]
    """
    require_at_least_zero("scale", scale)
    noise = scale * privacy[:, None] * jax.random.laplace(key, probabilities.shape)
    kept = jnp.maximum(probabilities + noise, 0.0)
    mass = jnp.sum(kept, axis=-1, keepdims=True)
    return jnp.where(mass > 0, kept / jnp.where(mass > 0, mass, 1.0), 1 / kept.shape[-1])


_ABOVE_ZERO = above_zero("logits are divided by it", 1.0)
ENTRIES = MappingProxyType({
    "swing": Entry(swing, "Private", options={"low": 1.0, "high": 8.0, "rescale": True},
                   source="Li et al., Swing Distillation: A Privacy-Preserving Knowledge "
                          "Distillation Framework, 2022",
                   checks={"low": _ABOVE_ZERO, "high": _ABOVE_ZERO}),
})
