"""Every stored image shows F x F smaller ones: cut in patches, each enlarged to full size.

  images[m, a, b] = R_a X_m S_b^T,   R_a [H, H] and S_b [W, W] sparse, a and b in 0..F-1

R_a picks rows a h to (a + 1) h - 1 of a stored image, h = ceil(H / F), and interpolates them to H
rows; S_b does the same with columns. The decoder is linear, two small matrix products, and so is
its derivative: nothing is gathered or scattered.

Interpolation weights sum to one, and the normalisers "none" and "standardise" are affine maps of
each channel, so decoding in model space is decoding of pixels. Of whitened images that is not so.

Source: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.types import Parameterization, SyntheticSet

VARIANTS = ("single", "multi")


def multi_formation(
    parameterization: Parameterization,
    *,
    factor: int = 2,
    variant: str = "single",
    fill: Any = 0.0,
) -> Parameterization:
    """Another parameterization, each of its images decoded to factor^2 images of the same size.

    Patches are enlarged bilinearly with half-pixel centres and clamped edges. The result is
    class-major: image after image, each followed by its own patches row by row, and the label of
    an image is that of its patches. The official code goes patch by patch instead, each over all
    images of a class; only the order differs.

    Args:
      parameterization: makes the stored images, such as `pixels()`.
      factor: F, patches per side.
      variant: "single" decodes with `factor`, "multi" with each of 1, 2, ..., `factor`: every
        image gives 1 + 4 + ... + F^2.
      fill: the model-space value, scalar or [C], of the pixels that are added right and below
        where F does not divide the size; officially the normalised grey 0.5.

    Returns:
      A `Parameterization` with the params and groups of the other one.

    Raises:
      ConfigError: factor below 1 or unknown variant; at `init`, images so small that a patch
        would hold nothing but `fill`, or a `fill` of another number of channels.

    Example:
      >>> from dd_jax.synthetic import pixels
      >>> quarters = multi_formation(pixels(), factor=2)
      >>> start = SyntheticSet(jnp.ones((2, 4, 4, 1)), jnp.eye(2))
      >>> params = quarters.init(jax.random.key(0), start)
      >>> quarters.decode(params, jax.random.key(1)).images.shape
      (8, 4, 4, 1)
    """
    _check_factor(factor)
    if variant not in VARIANTS:
        raise unknown("variant of multi-formation", variant, VARIANTS)
    factors = range(1, factor + 1) if variant == "multi" else (factor,)
    fill = np.asarray(fill, np.float32)

    def init(key: jax.Array, start: SyntheticSet):
        _check_shape(start.images.shape, factors)
        channels = start.images.shape[-1]
        if fill.shape not in ((), (channels,)):
            raise ConfigError(f"fill has shape {fill.shape}, expected a scalar or [{channels}]",
                              fix="pass one model-space value per channel")
        return parameterization.init(key, start)

    def decode(params, key: jax.Array) -> SyntheticSet:
        stored = parameterization.decode(params, key)
        # [M, patches of one image, H, W, C]: class-major whatever the factors.
        shown = jnp.concatenate([_patches(stored.images, f, fill) for f in factors], axis=1)
        return stored._replace(
            images=shown.reshape(-1, *shown.shape[2:]),
            labels=jnp.repeat(stored.labels, shown.shape[1], axis=0),
        )

    return parameterization._replace(init=init, decode=decode, record=None)


def paste(images: jax.Array, *, factor: int, interpolation: str = "nearest") -> jax.Array:
    """Shrinks every factor^2 consecutive images into one stored image: a start for the decoder.

    Patch (a, b) of stored image m comes from image m F^2 + a F + b, so that decoded image i shows
    image i. From ipc * F^2 real images of each class this makes the ipc images of the `mix` start.
    Where F does not divide H, patches sit where the decoder cuts and the last ones are cropped;
    the official start splits H as evenly as it can and meets its own decoder only in part.

    Args:
      images: [M, H, W, C] float32, M a multiple of factor^2.
      factor: F.
      interpolation: "nearest" (IDC: source row floor(i H / h)) or "bilinear" (IDM: half-pixel
        centres, for F = 2 and even sizes the mean of 2 x 2 pixels).

    Returns:
      [M / factor^2, H, W, C].

    Raises:
      ConfigError: wrong factor, M that it does not divide, or unknown interpolation.

    Example:
      >>> paste(jnp.arange(4.0)[:, None, None, None] * jnp.ones((4, 2, 2, 1)), factor=2)[0, ..., 0]
      Array([[0., 1.],
             [2., 3.]], dtype=float32)
    """
    _check_factor(factor)
    if interpolation not in _WEIGHTS:
        raise unknown("interpolation", interpolation, _WEIGHTS)
    _check_shape(images.shape, (factor,))
    count, *shape = images.shape
    if count % factor**2:
        raise ConfigError(f"there are {count} images, expected a multiple of {factor**2}",
                          fix="pass factor^2 images for each stored one")
    groups = images.reshape(-1, factor, factor, *shape)
    rows, cols = (_placement(size, factor, interpolation) for size in shape[:2])
    tall = jnp.einsum("ayh,mabhwc->mbywc", rows, groups, precision="highest")
    return jnp.einsum("bxw,mbywc->myxc", cols, tall, precision="highest")


def _patches(images: jax.Array, factor: int, fill: np.ndarray) -> jax.Array:
    """[M, H, W, C] -> [M, F^2, H, W, C], patches row by row."""
    rows, cols = (_enlargement(size, factor) for size in images.shape[1:3])
    shown = jnp.einsum("ayh,mhwc->maywc", rows, images, precision="highest")
    shown = jnp.einsum("bxw,maywc->mabyxc", cols, shown, precision="highest")
    # What a pixel's weights lack to one is the share of the pixels beyond the image.
    share = 1.0 - np.einsum("ay,bx->abyx", rows.sum(-1), cols.sum(-1))[..., None]
    if share.max() > 1e-6:
        shown = shown + share * fill
    return shown.reshape(len(images), factor**2, *images.shape[1:])


def _enlargement(size: int, factor: int) -> np.ndarray:
    """[F, size, size] float32: patch a of a line of pixels, brought to the line's full length."""
    side = -(-size // factor)
    weights = np.zeros((factor, size, factor * side), np.float32)
    for patch in range(factor):
        weights[patch, :, patch * side : (patch + 1) * side] = _bilinear(size, side)
    return weights[..., :size]


def _placement(size: int, factor: int, interpolation: str) -> np.ndarray:
    """[F, size, size] float32: a line shrunk to a patch, at place a of a line, cropped."""
    side = -(-size // factor)
    weights = np.zeros((factor, factor * side, size), np.float32)
    for patch in range(factor):
        weights[patch, patch * side : (patch + 1) * side] = _WEIGHTS[interpolation](side, size)
    return weights[:, :size]


def _bilinear(to: int, of: int) -> np.ndarray:
    """[to, of] weights of `to` pixels on `of` pixels: half-pixel centres, clamped edges."""
    centre = np.clip((np.arange(to) + 0.5) * of / to - 0.5, 0, of - 1)
    return np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(of)))


def _nearest(to: int, of: int) -> np.ndarray:
    """[to, of] weights that take pixel floor(i of / to) for pixel i."""
    return np.eye(of)[np.arange(to) * of // to]


_WEIGHTS = {"nearest": _nearest, "bilinear": _bilinear}


def _check_factor(factor: int) -> None:
    require_whole("factor", factor, example=2)


def _check_shape(shape: tuple[int, ...], factors) -> None:
    for factor in factors:
        for size in shape[1:3]:
            if (factor - 1) * -(-size // factor) >= size:
                raise ConfigError(
                    f"{size} pixels make fewer than {factor} patches of {-(-size // factor)}",
                    fix="pass a smaller factor",
                )
