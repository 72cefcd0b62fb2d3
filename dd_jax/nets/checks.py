"""Refusals that architectures of fixed depth share."""

from __future__ import annotations

from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.nets.layers import NORMS
from dd_jax.types import DataSpec


def check_width(width: int) -> None:
    """Refuses what is not an integer of at least 1.

    Raises:
      ConfigError: as said.
    """
    require_whole("width", width, example=64)


def check_size(spec: DataSpec, *, network: str, grown: int, poolings: int) -> None:
    """Refuses images of which 2x2 poolings would leave nothing.

    Args:
      spec: the data.
      network: its name, for the message.
      grown: pixels by which the first convolution makes the maps larger than the images.
      poolings: how many there are.

    Raises:
      ConfigError: the smaller side is below 2^poolings - grown.
    """
    height, width, _ = spec.shape
    least = 2**poolings - grown
    if min(height, width) < least:
        raise ConfigError(
            f"images are {height}x{width}, expected at least {least}x{least} for the {poolings} "
            f"poolings of {network}",
            fix="use larger images or a shallower network such as 'convnet'",
        )


def check_halved(spec: DataSpec, width: int, norm: str) -> None:
    """Refuses what no network of normalised convolutions in stages of half the map can be.

    Raises:
      ConfigError: an unknown normalisation, a width below 1, or images below 8 pixels.
    """
    if norm not in NORMS:
        raise unknown("normalisation", norm, NORMS)
    check_width(width)
    if min(spec.shape[:2]) < 8:
        raise ConfigError(f"images are {spec.shape[0]}x{spec.shape[1]}, expected at least 8x8",
                          fix="use a smaller network such as 'convnet'")
