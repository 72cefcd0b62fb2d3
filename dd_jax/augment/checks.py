"""What every augmentation asks of its arguments, answered before anything is compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns `shape` as three positive integers (H, W, C).

    Raises:
      ConfigError: it is not three integers of at least 1.

    Example:
      >>> check_shape([28, 28, 1])
      (28, 28, 1)
    """
    try:
        checked = tuple(int(side) for side in shape)
        valid = len(checked) == 3 and min(checked) >= 1 and checked == tuple(shape)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ConfigError(
            f"image shape is {shape!r}, expected (H, W, C) with three integers of at least 1",
            fix="pass the shape of one image, for example data.spec.shape",
        )
    return checked


def check_count(count: int) -> int:
    """Returns `count`, the leading axis of a draw.

    Raises:
      ConfigError: it is not a Python integer of at least 1.
    """
    if isinstance(count, bool) or not hasattr(count, "__index__") or count < 1:
        raise ConfigError(
            f"count is {count!r}, expected an integer of at least 1",
            fix="pass 1 for one draw shared by a batch, or the number of images in the batch",
        )
    return int(count)


def check_images(images: jax.Array, shape: tuple[int, int, int] | None = None) -> None:
    """Refuses anything but a floating [B, H, W, C] batch, of the given (H, W, C) if there is one.

    Raises:
      ConfigError: the rank, the image shape or the dtype is another.
    """
    if images.ndim != 4 or (shape is not None and tuple(images.shape[1:]) != tuple(shape)):
        expected = "[B, H, W, C]" if shape is None else f"[B, {shape[0]}, {shape[1]}, {shape[2]}]"
        raise ConfigError(
            f"images have shape {list(images.shape)}, expected {expected}",
            fix="build the augmentation with the shape of the images it is applied to",
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ConfigError(
            f"images are {images.dtype}, expected a floating dtype",
            fix="normalise stored uint8 images to float32 model space first",
        )


def check_leading(parameter: jax.Array, images: jax.Array, name: str) -> jax.Array:
    """Returns `parameter` as an array whose leading axis is 1 or B.

    Raises:
      ConfigError: it has no leading axis, or one of another length.
    """
    parameter = jnp.asarray(parameter)
    if parameter.ndim < 1 or parameter.shape[0] not in (1, images.shape[0]):
        raise ConfigError(
            f"{name} has shape {list(parameter.shape)}, expected a leading axis of 1 or "
            f"{images.shape[0]}, the number of images",
            fix="draw with count=1 to share one draw, or with count equal to the batch",
        )
    return parameter


def check_ratio(name: str, value: float, *, low: float, high: float = math.inf) -> float:
    """Returns a strength as a float within low..high.

    Raises:
      ConfigError: it is not a finite number, or lies outside.

    Example:
      >>> check_ratio("crop", 0.125, low=0.0, high=1.0)
      0.125
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        bound = f"at least {low:g}" if high == math.inf else f"in {low:g}..{high:g}"
        raise ConfigError(
            f"{name} is {value!r}, expected a finite number {bound}",
            fix=f"leave {name} out to use the published value",
        )
    return number
