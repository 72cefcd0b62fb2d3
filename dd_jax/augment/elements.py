"""Single random operations as augmentations: the pieces that DSA and FRePo are made of.

Each draws all its numbers at once as one uniform array, one row for each draw, and keeps the
values that `ops` takes (a shift in pixels, an angle in radians), so that params can be read.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dd_jax.augment import ops
from dd_jax.augment.checks import check_count, check_images, check_ratio, check_shape
from dd_jax.types import Augmentation


def random_flip(shape: tuple[int, int, int]) -> Augmentation:
    """Returns a left-right mirror with probability one half; params are `flag` [count] bool."""
    return _element(
        shape,
        1,
        lambda u: {"flag": u[:, 0] < 0.5},
        lambda params, images: ops.flip(images, params["flag"]),
    )


def random_colour(
    shape: tuple[int, int, int],
    *,
    offset: tuple[float, float],
    saturation: tuple[float, float],
    contrast: tuple[float, float],
) -> Augmentation:
    """Returns brightness, then saturation, then contrast, each uniform in its (low, high).

    Args:
      shape: (H, W, C).
      offset: range of what brightness adds, in units of model space.
      saturation: range of the saturation factor; 1 is no change.
      contrast: range of the contrast factor; 1 is no change.

    Returns:
      An `Augmentation`; params are `offset`, `saturation` and `contrast`, each [count].
    """

    def read(u):
        return {
            "offset": _between(u[:, 0], *offset),
            "saturation": _between(u[:, 1], *saturation),
            "contrast": _between(u[:, 2], *contrast),
        }

    def apply(params, images):
        images = ops.brightness(images, params["offset"])
        images = ops.saturation(images, params["saturation"])
        return ops.contrast(images, params["contrast"])

    return _element(shape, 3, read, apply)


def random_jitter(shape: tuple[int, int, int], *, offset: float, factor: float) -> Augmentation:
    """Returns brightness, then contrast and saturation by factors that are log-uniform.

    Args:
      shape: (H, W, C).
      offset: brightness adds what is uniform in -offset..offset, in units of model space.
      factor: the logarithms of both factors are uniform in -factor..factor.

    Returns:
      An `Augmentation`; params are `offset`, `contrast` and `saturation`, each [count].
    """
    offset = check_ratio("offset", offset, low=0.0)
    factor = check_ratio("factor", factor, low=0.0)

    def read(u):
        return {
            "offset": _between(u[:, 0], -offset, offset),
            "contrast": jnp.exp(_between(u[:, 1], -factor, factor)),
            "saturation": jnp.exp(_between(u[:, 2], -factor, factor)),
        }

    def apply(params, images):
        images = ops.brightness(images, params["offset"])
        images = ops.contrast(images, params["contrast"])
        return ops.saturation(images, params["saturation"])

    return _element(shape, 3, read, apply)


def random_shift(shape: tuple[int, int, int], *, ratio: float) -> Augmentation:
    """Returns a shift with zero fill, uniform over the integers -r..r, r = floor(ratio N + 0.5).

    The axes are drawn apart, N being H for `rows` and W for `cols`, both [count] int32.
    """
    height, width, _ = check_shape(shape)
    ratio = check_ratio("crop", ratio, low=0.0, high=1.0)
    limit = (_round_half_up(ratio * height), _round_half_up(ratio * width))

    def read(u):
        return {
            "rows": _integer(u[:, 0], -limit[0], limit[0]),
            "cols": _integer(u[:, 1], -limit[1], limit[1]),
        }

    def apply(params, images):
        return ops.shift(images, params["rows"], params["cols"], limit=limit)

    return _element(shape, 2, read, apply)


def random_translation(
    shape: tuple[int, int, int], *, ratio: float, edge: bool = False
) -> Augmentation:
    """Returns a shift by any number of pixels, uniform in -ratio N..ratio N, see `ops.translate`.

    The axes are drawn apart, N being H for `rows` and W for `cols`, both [count].
    """
    height, width, _ = check_shape(shape)
    ratio = check_ratio("translate", ratio, low=0.0, high=1.0)

    def read(u):
        return {
            "rows": _between(u[:, 0], -ratio * height, ratio * height),
            "cols": _between(u[:, 1], -ratio * width, ratio * width),
        }

    def apply(params, images):
        return ops.translate(images, params["rows"], params["cols"], edge=edge)

    return _element(shape, 2, read, apply)


def random_cutout(shape: tuple[int, int, int], *, ratio: float) -> Augmentation:
    """Returns a zeroed rectangle of floor(ratio N + 0.5) pixels a side, N being H and W.

    The centre is uniform over the integers 0..N for an even side and 0..N-1 for an odd one, so
    that it is symmetric; params are `row` and `col`, each [count] int32.
    """
    height, width, _ = check_shape(shape)
    ratio = check_ratio("cutout", ratio, low=0.0, high=1.0)
    size = (_round_half_up(ratio * height), _round_half_up(ratio * width))

    def read(u):
        return {
            "row": _integer(u[:, 0], 0, height - size[0] % 2),
            "col": _integer(u[:, 1], 0, width - size[1] % 2),
        }

    def apply(params, images):
        return ops.cutout(images, params["row"], params["col"], size=size)

    return _element(shape, 2, read, apply)


def random_inner_cutout(shape: tuple[int, int, int], *, part: int) -> Augmentation:
    """Returns a zeroed rectangle of N // part pixels a side that lies inside the image.

    All its places are equally likely; params are `row` and `col`, its centre as `ops.cutout` counts
    it, each [count] int32.
    """
    height, width, _ = check_shape(shape)
    size = (height // part, width // part)

    def read(u):
        return {
            "row": _integer(u[:, 0], 0, height - size[0]) + size[0] // 2,
            "col": _integer(u[:, 1], 0, width - size[1]) + size[1] // 2,
        }

    def apply(params, images):
        return ops.cutout(images, params["row"], params["col"], size=size)

    return _element(shape, 2, read, apply)


def random_scale(shape: tuple[int, int, int], *, ratio: float) -> Augmentation:
    """Returns a scaling, uniform in 1/ratio..ratio; params `factor_y` and `factor_x` [count]."""
    ratio = check_ratio("scale", ratio, low=1.0)

    def read(u):
        return {
            "factor_y": _between(u[:, 0], 1 / ratio, ratio),
            "factor_x": _between(u[:, 1], 1 / ratio, ratio),
        }

    def apply(params, images):
        return ops.scale(images, params["factor_y"], params["factor_x"])

    return _element(shape, 2, read, apply)


def random_rotation(
    shape: tuple[int, int, int], *, degrees: float, align_corners: bool = False,
    edge: bool = False,
) -> Augmentation:
    """Returns a rotation uniform in -degrees..degrees; params are `angle` [count] in radians.

    What comes from outside is zero or, with `edge`, the border.
    """
    limit = math.radians(check_ratio("rotate", degrees, low=0.0, high=180.0))
    return _element(
        shape,
        1,
        lambda u: {"angle": _between(u[:, 0], -limit, limit)},
        lambda params, images: ops.rotate(images, params["angle"], align_corners=align_corners,
                                          edge=edge),
    )


def random_zoom(
    shape: tuple[int, int, int], *, ratio: float, align_corners: bool = False,
    edge: bool = False,
) -> Augmentation:
    """Returns a resized crop: a zoom log-uniform in 1/ratio..ratio of a window placed uniformly.

    What comes from outside is zero or, with `edge`, the border. Params are `factor`, `place_y` and
    `place_x`, each [count].
    """
    limit = math.log(check_ratio("zoom", ratio, low=1.0))

    def read(u):
        return {
            "factor": jnp.exp(_between(u[:, 0], -limit, limit)),
            "place_y": _between(u[:, 1], -1.0, 1.0),
            "place_x": _between(u[:, 2], -1.0, 1.0),
        }

    def apply(params, images):
        where = (params["factor"], params["place_y"], params["place_x"])
        return ops.zoom(images, *where, align_corners=align_corners, edge=edge)

    return _element(shape, 3, read, apply)


def _element(shape, numbers: int, read, apply) -> Augmentation:
    """An augmentation from `read`, which turns [count, numbers] uniforms into params."""
    shape = check_shape(shape)

    def draw(key, count):
        return read(jax.random.uniform(key, (check_count(count), numbers), jnp.float32))

    def checked(params, images):
        check_images(images, shape)
        return apply(params, images)

    return Augmentation(draw, checked)


def _between(u: jax.Array, low: float, high: float) -> jax.Array:
    return low + (high - low) * u


def _integer(u: jax.Array, low: int, high: int) -> jax.Array:
    # The minimum guards the one float32 below 1 whose product could round up to the next integer.
    steps = jnp.floor(u * (high - low + 1)).astype(jnp.int32)
    return low + jnp.minimum(steps, high - low)


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5)
