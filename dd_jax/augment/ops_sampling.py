"""Operations that resample by bilinear interpolation.

Outside the image there are zeros or, with `edge=True`, the nearest pixels of its border: a position
is then brought back to the image before it is read.

Coordinates are X along the columns and Y along the rows, both from -1 to 1 and each normalised by
its own axis. Two conventions place pixel i of N:

  pixel centres (the default):    X_i = (2 i + 1) / N - 1,   half extent h = N / 2
  corners (`align_corners=True`): X_i = 2 i / (N - 1) - 1,   half extent h = (N - 1) / 2

In both, X = (i - (N - 1) / 2) / h. A linear map of (X, Y) without translation on a square image
is therefore the same in pixels under either convention: the argument only matters for
translations and for turning images that are not square. On those a rotation of (X, Y) also
shears, as it does in the torch code this follows.

A scale along the axes is two small matrix products with the interpolation weights as matrices; a
general map gathers the four neighbours. Both are exact bilinear interpolation.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dd_jax.augment.checks import check_images, check_leading
from dd_jax.errors import ConfigError


def affine(
    images: jax.Array, matrix: jax.Array, *, align_corners: bool = False, edge: bool = False
) -> jax.Array:
    """Samples the image at (X', Y') = matrix (X, Y, 1).

    Args:
      images: [B, H, W, C] floating.
      matrix: [B, 2, 3] or [1, 2, 3] float; the first row gives X', along the columns.
      align_corners: which convention places the pixels, see the module.
      edge: whether the border goes on outside the image, or zeros.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.arange(6.0).reshape(1, 2, 3, 1)
      >>> mirror = jnp.array([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
      >>> affine(x, mirror).ravel().tolist()
      [2.0, 1.0, 0.0, 5.0, 4.0, 3.0]
    """
    check_images(images)
    matrix = check_leading(matrix, images, "matrix")
    if matrix.shape[1:] != (2, 3):
        raise ConfigError(
            f"matrix has shape {list(matrix.shape)}, expected [B, 2, 3] or [1, 2, 3]",
            fix="stack one 2 by 3 matrix for each image, or one for the batch",
        )
    a = matrix.astype(_position_dtype(images))[:, :, :, None, None]
    _, height, width, _ = images.shape
    half_y, half_x = _half_extent(height, align_corners), _half_extent(width, align_corners)
    dy = _offsets(height, a.dtype)[:, None]
    dx = _offsets(width, a.dtype)[None, :]
    # In pixels, so that the identity matrix gives back exact integer positions; the ratios of
    # half extents are 0 where an axis has one pixel and so no extent under align_corners.
    across = half_x / half_y if half_y else 0.0
    down = half_y / half_x if half_x else 0.0
    x = a[:, 0, 0] * dx + across * a[:, 0, 1] * dy + half_x * a[:, 0, 2] + (width - 1) / 2
    y = down * a[:, 1, 0] * dx + a[:, 1, 1] * dy + half_y * a[:, 1, 2] + (height - 1) / 2
    return _bilinear(images, y, x, edge)


def rotate(
    images: jax.Array, angle: jax.Array, *, align_corners: bool = False, edge: bool = False
) -> jax.Array:
    """Samples the image at R(angle) (X, Y), R = [[cos, -sin], [sin, cos]].

    With rows counted downwards a positive angle turns the content anticlockwise.

    Args:
      images: [B, H, W, C] floating.
      angle: [B] or [1], in radians; 0 is the identity.
      align_corners: which convention places the pixels, see the module.
      edge: whether the border goes on outside the image, or zeros.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
      >>> [round(v, 3) for v in rotate(x, jnp.array([jnp.pi / 2])).ravel().tolist()]
      [2.0, 4.0, 1.0, 3.0]
    """
    check_images(images)
    angle = check_leading(angle, images, "angle").astype(_position_dtype(images))
    cos, sin, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    rows = [jnp.stack([cos, -sin, zero], axis=-1), jnp.stack([sin, cos, zero], axis=-1)]
    return affine(images, jnp.stack(rows, axis=1), align_corners=align_corners, edge=edge)


def scale(images: jax.Array, factor_y: jax.Array, factor_x: jax.Array) -> jax.Array:
    """Samples the image at (factor_x X, factor_y Y): above 1 the content shrinks.

    Both pixel conventions give the same result, see the module.

    Args:
      images: [B, H, W, C] floating.
      factor_y: [B] or [1], along the rows; 1 is the identity.
      factor_x: [B] or [1], along the columns; 1 is the identity.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([4.0, 4.0, 4.0, 4.0]).reshape(1, 1, 4, 1)
      >>> scale(x, jnp.array([1.0]), jnp.array([2.0])).ravel().tolist()
      [0.0, 4.0, 4.0, 0.0]
    """
    check_images(images)
    factor_y = check_leading(factor_y, images, "factor_y")
    factor_x = check_leading(factor_x, images, "factor_x")
    none = jnp.zeros((1,), _position_dtype(images))
    return _separable(images, (factor_y, none), (factor_x, none))


def zoom(
    images: jax.Array,
    factor: jax.Array,
    place_y: jax.Array,
    place_x: jax.Array,
    *,
    align_corners: bool = False,
    edge: bool = False,
) -> jax.Array:
    """Resizes a window of side N / factor to the whole image: a resized crop of the same aspect.

    It samples at (X / factor + place_x (1 - 1 / factor), and the same for Y). The window stays
    inside the image for factor > 1, and the image inside the window for factor < 1.

    Args:
      images: [B, H, W, C] floating.
      factor: [B] or [1], positive; above 1 the content grows, 1 is the identity.
      place_y: [B] or [1] in -1..1, where the window lies along the rows, 0 in the middle.
      place_x: [B] or [1] in -1..1, the same along the columns.
      align_corners: which convention places the pixels, see the module.
      edge: whether the border goes on outside the image, or zeros.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 4, 1)
      >>> right = zoom(x, jnp.array([2.0]), jnp.array([0.0]), jnp.array([1.0]))
      >>> right.ravel().tolist()
      [1.75, 2.25, 2.75, 2.25]
    """
    check_images(images)
    dtype = _position_dtype(images)
    inverse = 1 / check_leading(factor, images, "factor").astype(dtype)
    place_y = check_leading(place_y, images, "place_y").astype(dtype)
    place_x = check_leading(place_x, images, "place_x").astype(dtype)
    _, height, width, _ = images.shape
    move_y = _half_extent(height, align_corners) * (1 - inverse) * place_y
    move_x = _half_extent(width, align_corners) * (1 - inverse) * place_x
    return _separable(images, (inverse, move_y), (inverse, move_x), edge=edge)


def translate(
    images: jax.Array, rows: jax.Array, cols: jax.Array, *, edge: bool = False
) -> jax.Array:
    """Shifts by any number of pixels: out[i, j] = x[i + rows, j + cols], between pixels bilinear.

    Args:
      images: [B, H, W, C] floating.
      rows: [B] or [1] float, in pixels down the image; 0 is the identity.
      cols: [B] or [1] float, in pixels along the width.
      edge: whether the border goes on outside the image, or zeros.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([0.0, 1.0, 2.0, 3.0]).reshape(1, 1, 4, 1)
      >>> translate(x, jnp.array([0.0]), jnp.array([0.5]), edge=True).ravel().tolist()
      [0.5, 1.5, 2.5, 3.0]
    """
    check_images(images)
    rows = check_leading(rows, images, "rows").astype(_position_dtype(images))
    cols = check_leading(cols, images, "cols").astype(_position_dtype(images))
    one = jnp.ones((1,), _position_dtype(images))
    return _separable(images, (one, rows), (one, cols), edge=edge)


def _half_extent(length: int, align_corners: bool) -> float:
    """Half the pixels between X = -1 and X = 1."""
    return (length - 1) / 2 if align_corners else length / 2


def _offsets(length: int, dtype: jnp.dtype) -> jax.Array:
    """[length]: the pixels of one axis counted from its middle."""
    return jnp.arange(length, dtype=dtype) - (length - 1) / 2


def _position_dtype(images: jax.Array) -> jnp.dtype:
    # Half precision cannot place a pixel of a wide image, so positions are at least float32.
    return jnp.promote_types(images.dtype, jnp.float32)


def _separable(
    images: jax.Array,
    rows: tuple[jax.Array, jax.Array],
    cols: tuple[jax.Array, jax.Array],
    *,
    edge: bool = False,
) -> jax.Array:
    """Samples at factor * offset + move pixels from the middle, one (factor, move) for an axis."""
    for axis, (factor, move) in ((1, rows), (2, cols)):
        dtype = _position_dtype(images)
        weights = _axis_weights(images.shape[axis], factor, move, dtype, edge)
        weights = weights.astype(images.dtype)
        # HIGHEST: the weights are interpolation, and must not be rounded by fast matmul units.
        if weights.shape[0] == 1:
            terms = "ih,bhwc->biwc" if axis == 1 else "jw,bhwc->bhjc"
            images = jnp.einsum(terms, weights[0], images, precision=lax.Precision.HIGHEST)
        else:
            terms = "bih,bhwc->biwc" if axis == 1 else "bjw,bhwc->bhjc"
            images = jnp.einsum(terms, weights, images, precision=lax.Precision.HIGHEST)
    return images


def _axis_weights(
    length: int, factor: jax.Array, move: jax.Array, dtype: jnp.dtype, edge: bool
) -> jax.Array:
    """[count, length, length]: weight of input pixel k (last axis) in output pixel i."""
    offsets = _offsets(length, dtype)
    position = factor.astype(dtype)[:, None] * offsets + move.astype(dtype)[:, None]
    if edge:
        position = jnp.clip(position, offsets[0], offsets[-1])
    return jnp.maximum(0, 1 - jnp.abs(position[:, :, None] - offsets))


def _bilinear(images: jax.Array, y: jax.Array, x: jax.Array, edge: bool) -> jax.Array:
    """Gathers the four neighbours of positions y, x, both [1 or B, H, W] in pixels."""
    batch, height, width, channels = images.shape
    flat = images.reshape(batch, height * width, channels)
    if edge:
        y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
    low_y, low_x = jnp.floor(y), jnp.floor(x)
    total = jnp.zeros_like(flat)
    for at_y in (low_y, low_y + 1):
        for at_x in (low_x, low_x + 1):
            inside = (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
            weight = jnp.where(inside, (1 - jnp.abs(y - at_y)) * (1 - jnp.abs(x - at_x)), 0)
            index = jnp.where(inside, at_y * width + at_x, 0).astype(jnp.int32)
            weight = weight.reshape(-1, height * width, 1).astype(images.dtype)
            total += weight * _take_pixels(flat, index.reshape(-1, height * width))
    return total.reshape(images.shape)


def _take_pixels(flat: jax.Array, index: jax.Array) -> jax.Array:
    """Pixels [B, P, C] of `flat` [B, P, C] at indices [1 or B, P], all of which are in bounds."""
    if index.shape[0] == 1:
        return flat.at[:, index[0]].get(mode="promise_in_bounds")
    return jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(flat, index)
