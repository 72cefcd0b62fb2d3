"""Colour operations on a batch, each with one parameter per image.

A parameter is [B], one value for each image, or [1], one value for the whole batch. Nothing is
clipped: the images live in model space, where a pixel has no bounds. All three are linear or
affine in the images and divide by nothing, so the gradient is finite on constant images too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.augment.checks import check_images, check_leading


def brightness(images: jax.Array, offset: jax.Array) -> jax.Array:
    """Adds a constant to every pixel and channel: x + offset.

    Args:
      images: [B, H, W, C] floating.
      offset: [B] or [1], in units of model space; 0 is the identity.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> brightness(jnp.zeros((1, 1, 2, 1)), jnp.array([0.5])).ravel().tolist()
      [0.5, 0.5]
    """
    return images + _per_image(offset, images, "offset")


def saturation(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales the distance to the grey image: (x - m) * factor + m, m the mean over channels.

    Images of one channel come back untouched.

    Args:
      images: [B, H, W, C] floating.
      factor: [B] or [1]; 1 is the identity, 0 is grey.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([0.0, 2.0]).reshape(1, 1, 1, 2)
      >>> saturation(x, jnp.array([2.0])).ravel().tolist()
      [-1.0, 3.0]
    """
    factor = _per_image(factor, images, "factor")
    if images.shape[-1] == 1:
        return images
    return _about(images, jnp.mean(images, axis=-1, keepdims=True), factor)


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Scales the distance to the mean of the image: (x - m) * factor + m, m over H, W and C.

    Args:
      images: [B, H, W, C] floating.
      factor: [B] or [1]; 1 is the identity, 0 is a constant image.

    Returns:
      [B, H, W, C] of the dtype of `images`.

    Raises:
      ConfigError: a shape or dtype does not fit.

    Example:
      >>> x = jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1)
      >>> contrast(x, jnp.array([0.5])).ravel().tolist()
      [0.5, 1.5]
    """
    factor = _per_image(factor, images, "factor")
    return _about(images, jnp.mean(images, axis=(1, 2, 3), keepdims=True), factor)


def _about(images: jax.Array, middle: jax.Array, factor: jax.Array) -> jax.Array:
    # x + (f - 1)(x - m) equals (x - m) f + m and is exactly x at f = 1, which the other is not.
    return images + (factor - 1) * (images - middle)


def _per_image(parameter: jax.Array, images: jax.Array, name: str) -> jax.Array:
    check_images(images)
    parameter = check_leading(parameter, images, name).astype(images.dtype)
    return parameter.reshape(-1, 1, 1, 1)
