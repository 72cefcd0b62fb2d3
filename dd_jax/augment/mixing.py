"""How images of a batch are mixed with one another: the draw apart from the application.

Sources: Yun et al., CutMix, ICCV 2019; Zhang et al., mixup, ICLR 2018.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.augment.checks import check_ratio
from dd_jax.augment.cutmix import apply_cutmix, draw_cutmix
from dd_jax.errors import ConfigError, require_probability, unknown
from dd_jax.types import PyTree


class Mixing(NamedTuple):
    """A way of mixing.

    Attributes:
      draw: (key, batch: int, shape: (H, W, C)) -> params, for the whole batch.
      apply: (params, images [B, H, W, C], labels [B, K]) -> (images, labels).
    """

    draw: Callable[..., PyTree]
    apply: Callable[..., tuple[jax.Array, jax.Array]]


def draw_mixup(key: jax.Array, batch: int, *, alpha: float) -> dict[str, jax.Array]:
    """One pairing and one weight for a batch.

    Args:
      key: PRNG key.
      batch: B.
      alpha: of the symmetric Beta distribution of the weight; above 0.

    Returns:
      "partner" [B] int32, a permutation, and "share" [] float32, the weight of the partners.

    Example:
      >>> draw_mixup(jax.random.key(0), 3, alpha=0.8)["partner"].shape
      (3,)
    """
    share_key, pair_key = jax.random.split(key)
    return {"partner": jax.random.permutation(pair_key, batch),
            "share": jax.random.beta(share_key, alpha, alpha, dtype=jnp.float32)}


def apply_mixup(
    draw: dict[str, jax.Array], images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(1 - share) x + share x_partner, of images [B, H, W, C] and of labels [B, K].

    Example:
      >>> draw = {"partner": jnp.array([1, 0]), "share": jnp.float32(0.25)}
      >>> apply_mixup(draw, jnp.zeros((2, 1, 1, 1)), jnp.eye(2))[1].tolist()
      [[0.75, 0.25], [0.25, 0.75]]
    """
    share, partner = draw["share"], draw["partner"]
    return tuple((1 - share) * x + share * x[partner] for x in (images, labels))


def _none(strength: float) -> Mixing:
    if strength != 0.0:
        raise ConfigError(f"mixing 'none' has strength {strength!r}", fix="leave the strength out")
    return Mixing(lambda key, batch, shape: (), lambda params, images, labels: (images, labels))


def _cutmix(strength: float) -> Mixing:
    require_probability("cutmix", strength)
    return Mixing(functools.partial(draw_cutmix, probability=strength), apply_cutmix)


def _mixup(strength: float) -> Mixing:
    check_ratio("mixup", strength, low=0.01, high=100.0)

    def draw(key, batch, shape):
        return draw_mixup(key, batch, alpha=strength)

    return Mixing(draw, apply_mixup)


# name -> (how, the usual strength: CutMix's probability, Mixup's alpha)
MIXINGS: Mapping[str, tuple[Callable[[float], Mixing], float]] = {
    "none": (_none, 0.0), "cutmix": (_cutmix, 1.0), "mixup": (_mixup, 0.8)}


def mixing(name: str) -> Mixing:
    """The way of mixing of that name, "NAME" or "NAME@STRENGTH".

    Args:
      name: "none"; "cutmix@p", which mixes a batch with probability p; "mixup@a", whose weight is
        Beta(a, a), a in 0.01..100.

    Returns:
      A `Mixing`.

    Raises:
      ConfigError: an unknown name, or a strength that cannot be.

    Example:
      >>> mixing("mixup@0.8").draw(jax.random.key(0), 4, (8, 8, 1))["partner"].shape
      (4,)
    """
    kind, at, text = str(name).partition("@")
    if kind not in MIXINGS:
        raise unknown("mixing", kind, MIXINGS)
    make, usual = MIXINGS[kind]
    try:
        strength = float(text) if at else usual
    except ValueError:
        raise ConfigError(f"mixing {name!r} has strength {text!r}, expected a number",
                          fix=f"pass {kind}@{usual}") from None
    return make(strength)
