"""How images of a batch are mixed with one another: the draw apart from the application."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from dd_jax.augment.cutmix import apply_cutmix, draw_cutmix
from dd_jax.augment.mixup import apply_mixup, draw_mixup
from dd_jax.errors import ConfigError, require_above_zero, require_probability, unknown
from dd_jax.types import PyTree


class Mixing(NamedTuple):
    """A way of mixing.

    Attributes:
      draw: (key, batch: int, shape: (H, W, C)) -> params, for the whole batch.
      apply: (params, images [B, H, W, C], labels [B, K]) -> (images, labels).
    """

    draw: Callable[..., PyTree]
    apply: Callable[..., tuple[jax.Array, jax.Array]]


def _none(strength: float) -> Mixing:
    if strength != 0.0:
        raise ConfigError(f"mixing 'none' has strength {strength!r}", fix="leave the strength out")
    return Mixing(lambda key, batch, shape: (), lambda params, images, labels: (images, labels))


def _cutmix(strength: float) -> Mixing:
    require_probability("cutmix", strength)
    return Mixing(functools.partial(draw_cutmix, probability=strength), apply_cutmix)


def _mixup(strength: float) -> Mixing:
    require_above_zero("mixup", strength, why="it is the parameter of a Beta distribution",
                       example=0.8)

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
        Beta(a, a).

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
