"""Operations that move or erase whole pixels: mirror, integer shift and cutout.

They never interpolate, so kept pixels keep their exact values. A parameter is [B], one value for
each image, or [1], one value for the whole batch; a shared shift is a single slice of the batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from dd_jax.augment.checks import check_images, check_leading


def flip(images: jax.Array, flag: jax.Array) -> jax.Array:
    """Mirrors the width of the images whose flag is set.

    Args:
      images: [B, H, W, C] floating.
      flag: [B] or [1] bool.

    Returns:
      [B, H, W, C].

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
      >>> flip(x, jnp.array([True])).ravel().tolist()
      [3.0, 2.0, 1.0]
    """
    check_images(images)
    flag = check_leading(flag, images, "flag").astype(bool).reshape(-1, 1, 1, 1)
    return jnp.where(flag, images[:, :, ::-1], images)


def shift(
    images: jax.Array,
    rows: jax.Array,
    cols: jax.Array,
    *,
    limit: tuple[int, int] | None = None,
) -> jax.Array:
    """Shifts by whole pixels: out[i, j] = x[i + rows, j + cols], zero outside.

    This is the "crop" of differentiable Siamese augmentation: pad with zeros, then crop.

    Args:
      images: [B, H, W, C] floating.
      rows: [B] or [1] int, down the image.
      cols: [B] or [1] int, along the width.
      limit: the largest absolute shift (rows, cols), which bounds the padding; shifts beyond it
        are cut to it. Left out it is (H, W), which allows every shift.

    Returns:
      [B, H, W, C].

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
      >>> shift(x, jnp.array([0]), jnp.array([1])).ravel().tolist()
      [2.0, 3.0, 0.0]
    """
    check_images(images)
    _, height, width, _ = images.shape
    top, left = (height, width) if limit is None else limit
    rows = jnp.clip(check_leading(rows, images, "rows"), -top, top) + top
    cols = jnp.clip(check_leading(cols, images, "cols"), -left, left) + left
    padded = jnp.pad(images, ((0, 0), (top, top), (left, left), (0, 0)))
    cols = cols.astype(rows.dtype)
    zero = jnp.zeros((), rows.dtype)  # one index type, also where x64 is on
    if rows.shape[0] == 1 and cols.shape[0] == 1:
        return lax.dynamic_slice(padded, (zero, rows[0], cols[0], zero), images.shape)
    count = images.shape[:1]
    window = jax.vmap(lambda image, i, j: lax.dynamic_slice(image, (i, j, zero), images.shape[1:]))
    return window(padded, jnp.broadcast_to(rows, count), jnp.broadcast_to(cols, count))


def cutout(
    images: jax.Array, row: jax.Array, col: jax.Array, *, size: tuple[int, int]
) -> jax.Array:
    """Sets a rectangle to zero: rows row - h//2 .. row - h//2 + h - 1, clipped to the image.

    Args:
      images: [B, H, W, C] floating.
      row: [B] or [1] int, the centre row.
      col: [B] or [1] int, the centre column.
      size: (h, w) of the rectangle in pixels; a zero side cuts nothing.

    Returns:
      [B, H, W, C].

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.ones((1, 1, 4, 1))
      >>> cutout(x, jnp.array([0]), jnp.array([1]), size=(1, 2)).ravel().tolist()
      [0.0, 0.0, 1.0, 1.0]
    """
    check_images(images)
    row = check_leading(row, images, "row")
    col = check_leading(col, images, "col")
    in_rows = _inside(images.shape[1], row, size[0])[:, :, None]
    in_cols = _inside(images.shape[2], col, size[1])[:, None, :]
    return jnp.where((in_rows & in_cols)[..., None], 0, images)


def _inside(length: int, centre: jax.Array, side: int) -> jax.Array:
    """[count, length] bool: which pixels of one axis the cut covers."""
    offset = jnp.arange(length) - (centre[:, None] - side // 2)
    return (offset >= 0) & (offset < side)
