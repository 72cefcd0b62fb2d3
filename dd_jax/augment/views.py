"""The random views of an image that self-supervised learning compares."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.augment.checks import check_ratio, check_shape
from dd_jax.augment.compose import compose
from dd_jax.augment.elements import random_colour, random_cutout, random_flip, random_shift
from dd_jax.errors import ConfigError
from dd_jax.types import Augmentation


def views(
    shape: tuple[int, int, int],
    *,
    padding: int = 4,
    flip: bool = True,
    colour: float = 0.0,
    cutout: float = 0.0,
    fill: jax.Array | None = None,
) -> Augmentation:
    """A random crop of the padded image, and on request a mirror, colour jitter and a cutout.

    All operations are applied, each image with its own parameters where draw is called with the
    number of images.

    Args:
      shape: (H, W, C).
      padding: pixels added on every side before the crop; 0 switches the crop off.
      flip: mirror with probability one half; leave it out for digits.
      colour: strength s: an offset in -s..s, then saturation and contrast factors in 1 - s..1 + s.
      cutout: side of an erased rectangle as a part of the image's; 0 erases nothing.
      fill: what padding and cutout show, anything that broadcasts to [H, W, C] in model space;
        zero by default, which is the mean. Black is `normalise(normaliser, zeros)`.

    Returns:
      An `Augmentation`; images go in and come out as [B, H, W, C] in model space.

    Raises:
      ConfigError: a shape or strength that cannot be.

    Example:
      >>> augmentation = views((8, 8, 1), padding=2, fill=jnp.array([-1.0]))
      >>> params = augmentation.draw(jax.random.key(0), 3)
      >>> augmentation.apply(params, jnp.ones((3, 8, 8, 1))).shape
      (3, 8, 8, 1)
    """
    height, width, _ = check_shape(shape)
    if isinstance(padding, bool) or not 0 <= padding <= min(height, width):
        raise ConfigError(f"padding is {padding!r}, expected 0..{min(height, width)}",
                          fix="pass padding=4 or similar")
    colour = check_ratio("colour", colour, low=0.0, high=1.0)
    cutout = check_ratio("cutout", cutout, low=0.0, high=1.0)
    parts = []
    if padding:
        # The ratio is of each side; on an image that is not square the longer one moves further.
        parts.append(random_shift(shape, ratio=padding / min(height, width)))
    if flip:
        parts.append(random_flip(shape))
    if colour:
        around = (1.0 - colour, 1.0 + colour)
        parts.append(random_colour(shape, offset=(-colour, colour), saturation=around,
                                   contrast=around))
    if cutout:
        parts.append(random_cutout(shape, ratio=cutout))
    together = compose(*parts)

    def apply(params, images):
        if fill is None:
            return together.apply(params, images)
        base = jnp.asarray(fill, images.dtype)
        return together.apply(params, images - base) + base

    return Augmentation(together.draw, apply)
