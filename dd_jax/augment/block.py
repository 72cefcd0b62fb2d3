"""Resized crops, mirrors and rolls: what images that a fixed network inverts are looked at through.

Source: torchvision's RandomResizedCrop; Yin et al., Squeeze, Recover and Relabel, NeurIPS 2023.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dd_jax.augment.checks import (
    check_count,
    check_images,
    check_leading,
    check_ratio,
    check_shape,
)
from dd_jax.augment.compose import compose
from dd_jax.augment.elements import random_flip
from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import Augmentation


def random_resized_crop(
    shape: tuple[int, int, int], *, area: float = 0.08, aspect: float = 4 / 3
) -> Augmentation:
    """Returns a window of whole pixels, resized to the image by bilinear interpolation.

    Its area is uniform in `area`..1 of the image's, the logarithm of its aspect in
    -log(aspect)..log(aspect), its place uniform. A side longer than the image's is cut to it
    (torchvision draws again).

    Args:
      shape: (H, W, C).
      area: the smallest, in 0..1.
      aspect: the largest ratio of the sides of a square image's window, at least 1.

    Returns:
      An `Augmentation`; params are `top`, `left`, `height` and `width`, each [count] int32.

    Raises:
      ConfigError: a shape, area or aspect that cannot be.

    Example:
      >>> whole = random_resized_crop((4, 4, 1), area=1.0, aspect=1.0)
      >>> window = whole.draw(jax.random.key(0), 1)
      >>> [int(window[name][0]) for name in ("top", "left", "height", "width")]
      [0, 0, 4, 4]
    """
    rows, cols, _ = shape = check_shape(shape)
    area = check_ratio("area", area, low=0.0, high=1.0)
    limit = math.log(check_ratio("aspect", aspect, low=1.0))

    def draw(key, count):
        u = jax.random.uniform(key, (check_count(count), 4), jnp.float32)
        size = jnp.sqrt(area + (1 - area) * u[:, 0])
        stretch = jnp.exp(limit * (u[:, 1] - 0.5))  # the root of an aspect
        height = jnp.clip(jnp.round(rows * size / stretch), 1, rows).astype(jnp.int32)
        width = jnp.clip(jnp.round(cols * size * stretch), 1, cols).astype(jnp.int32)
        # The minimum guards the one float32 below 1 whose product could round up.
        top = jnp.minimum((u[:, 2] * (rows - height + 1)).astype(jnp.int32), rows - height)
        left = jnp.minimum((u[:, 3] * (cols - width + 1)).astype(jnp.int32), cols - width)
        return {"top": top, "left": left, "height": height, "width": width}

    def apply(params, images):
        check_images(images, shape)
        for axis, first, side in ((1, "top", "height"), (2, "left", "width")):
            window = (check_leading(params[name], images, name) for name in (first, side))
            weights = _window_weights(images.shape[axis], *window, images.dtype)
            weights = jnp.broadcast_to(weights, (images.shape[0], *weights.shape[1:]))
            terms = "bih,bhwc->biwc" if axis == 1 else "bjw,bhwc->bhjc"
            images = jnp.einsum(terms, weights, images, precision="highest")
        return images

    return Augmentation(draw, apply)


def _window_weights(length: int, first: jax.Array, side: jax.Array, dtype) -> jax.Array:
    """[count, length, length]: weight of input pixel k (last axis) in output pixel i."""
    first, side = first[:, None].astype(dtype), side[:, None].astype(dtype)
    pixels = jnp.arange(length, dtype=dtype)
    inside = jnp.clip((pixels + 0.5) * side / length - 0.5, 0, side - 1)  # never looks outside
    return jnp.maximum(0, 1 - jnp.abs((first + inside)[:, :, None] - pixels))


def random_roll(shape: tuple[int, int, int], *, most: int) -> Augmentation:
    """Returns a roll of each axis by an integer uniform in 0..most; what leaves comes in again.

    Args:
      shape: (H, W, C).
      most: at least 0, in pixels.

    Returns:
      An `Augmentation`; params are `rows` and `cols`, each [count] int32.

    Raises:
      ConfigError: a shape or a number that cannot be.

    Example:
      >>> roll = random_roll((1, 3, 1), most=2)
      >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
      >>> roll.apply({"rows": jnp.array([0]), "cols": jnp.array([1])}, x).ravel().tolist()
      [3.0, 1.0, 2.0]
    """
    shape = check_shape(shape)
    require_whole("most", most, least=0, example=4)

    def draw(key, count):
        steps = jax.random.randint(key, (check_count(count), 2), 0, most + 1, jnp.int32)
        return {"rows": steps[:, 0], "cols": steps[:, 1]}

    def apply(params, images):
        check_images(images, shape)
        rows, cols = (check_leading(params[name], images, name) for name in ("rows", "cols"))
        if rows.shape[0] == 1:
            return jnp.roll(images, (rows[0], cols[0]), (1, 2))
        return jax.vmap(lambda x, i, j: jnp.roll(x, (i, j), (0, 1)))(images, rows, cols)

    return Augmentation(draw, apply)


def crop_flip_roll(
    shape: tuple[int, int, int], *, area: float = 0.08, roll: int = 0, flip: bool = True
) -> Augmentation:
    """Returns a resized crop, a mirror with probability one half, and a roll, in this order.

    Args:
      shape: (H, W, C).
      area: smallest area of a crop; 1 leaves crops out.
      roll: largest roll; 0 leaves rolls out.
      flip: False leaves the mirror out, for digits.

    Returns:
      An `Augmentation`.

    Raises:
      ConfigError: as of its parts; a roll that is longer than a side.

    Example:
      >>> len(crop_flip_roll((28, 28, 1), roll=4).draw(jax.random.key(0), 1))
      3
    """
    if isinstance(roll, int) and roll > min(shape[:2]):
        raise ConfigError(f"roll is {roll} for images of {shape[0]}x{shape[1]}",
                          fix=f"pass a roll of at most {min(shape[:2])}")
    parts = [random_resized_crop(shape, area=area)] if area != 1 else []
    parts += [random_flip(shape)] if flip else []
    parts += [random_roll(shape, most=roll)] if roll != 0 else []
    return compose(*parts)
