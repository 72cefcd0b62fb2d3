"""Where the networks' activations are, and the mean features, agree for real and synthetic images.

  A_l(x) = a_l / max(||a_l||_2, 1e-12),   a_l = sum_channels |F_l(x)|^p  [h w]
  d = sum_l || mean_real A_l - mean_syn A_l ||^2 + weight * || mean_real f - mean_syn f ||^2

F_l are the activations of block l before its pooling, for all blocks but the last; f are the
flattened features.

Source: Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero, require_whole
from dd_jax.objectives.discrepancy import Discrepancy
from dd_jax.types import Outputs

_EPS = 1e-12


def attention_map(maps: jax.Array, power: int) -> jax.Array:
    """Spatial attention of maps [b, h, w, c] over max(its length, 1e-12): [b, h w]."""
    attention = jnp.sum(jnp.abs(maps) ** power, axis=-1).reshape(maps.shape[0], -1)
    square = jnp.sum(attention**2, axis=-1, keepdims=True)
    dark = square <= _EPS**2
    # The root's own derivative at zero is infinite, and infinity times zero is not zero.
    norm = jnp.sqrt(jnp.where(dark, 1.0, square))
    return attention / jnp.where(dark, _EPS, norm)


def attention(*, power: int = 4, weight: float = 0.01) -> Discrepancy:
    """DataDAM's discrepancy, see the module.

    Args:
      power: p, a positive integer.
      weight: of the distance of mean features.

    Returns:
      A `Discrepancy` of means, for networks with at least two taps that are maps.

    Raises:
      ConfigError: a power below 1; when it meets a network without such taps.

    Example:
      >>> attention_map(jnp.ones((1, 2, 2, 3)), 4).tolist()
      [[0.5, 0.5, 0.5, 0.5]]
    """
    require_whole("power", power, example=4)
    require_at_least_zero("weight", weight, example=0.01)

    def collect(outputs: Outputs):
        maps = outputs.taps[:-1]
        if not maps or any(tap.ndim != 4 for tap in maps):
            found = [list(tap.shape[1:]) for tap in outputs.taps]
            raise ConfigError(
                f"the network's taps are {found}, expected at least two maps [h, w, c]",
                fix="use a convolutional network of at least two blocks",
            )
        return tuple(attention_map(tap, power) for tap in maps), outputs.features

    def compare(real, synthetic, drawn):
        (real_maps, real_features), (maps, features) = real, synthetic
        total = weight * jnp.sum((real_features - features) ** 2)
        return total + sum(jnp.sum((a - b) ** 2) for a, b in zip(real_maps, maps))

    return Discrepancy(collect=collect, compare=compare, means=True)
