"""The record of a fitted preprocessing, its application and its inverse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Optional

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, SetFileError

KINDS = ("none", "standardise", "zca", "zca_absolute", "zca_per_image")
_OPTIONAL = ("pixel_mean", "whiten", "unwhiten")
# Deviations, and the size of means: in float32 every quotient of them is finite, and its square.
LEAST_STD, MOST_STD = 1e-9, 1e9
_EPS = 1e-12


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Normaliser:
    """Preprocessing fitted on a training set, from [0, 1] pixels to model space.

    With x an image in [0, 1], flattened where needed, the steps are: z = (x - mean) / std per
    channel; where `per_image`, z minus its own mean, then divided by its own L2 norm; z minus
    `pixel_mean`; z times `whiten`. A step whose array is None is left out.

    Attributes:
      mean: [C] float32.
      std: [C] float32, positive.
      pixel_mean: [d] float32 or None, with d = H * W * C.
      whiten: [d, d] float32, symmetric, or None.
      unwhiten: [d, d] float32, the inverse of `whiten`, or None.
      kind: one of "none", "standardise", "zca", "zca_absolute", "zca_per_image".
      per_image: each image is centred and scaled by itself.
    """

    mean: jax.Array
    std: jax.Array
    pixel_mean: Optional[jax.Array] = None
    whiten: Optional[jax.Array] = None
    unwhiten: Optional[jax.Array] = None
    kind: str = dataclasses.field(default="standardise", metadata=dict(static=True))
    per_image: bool = dataclasses.field(default=False, metadata=dict(static=True))


def grey(normaliser: Normaliser, level: float) -> jax.Array:
    """A pixel of `level` in all channels, [C] in model space; "none" and "standardise" only.

    Example:
      >>> grey(Normaliser(jnp.array([0.5]), jnp.array([0.25])), 1.0).tolist()
      [2.0]
    """
    return normalise(normaliser, jnp.full((1, 1, normaliser.mean.shape[0]), level))[0, 0]


def normalise(normaliser: Normaliser, images: jax.Array) -> jax.Array:
    """Brings images to model space.

    Args:
      normaliser: fitted on the training set.
      images: [..., H, W, C]; uint8 is divided by 255, floats are taken as [0, 1].

    Returns:
      [..., H, W, C] float32.

    Raises:
      ConfigError: integers other than uint8, or a shape that the normaliser was not fitted on.

    Example:
      >>> normalise(identity((1, 1, 1)), jnp.full((1, 1, 1), 255, jnp.uint8)).tolist()
      [[[1.0]]]
    """
    _check(normaliser, images)
    scale = 255.0 if images.dtype == jnp.uint8 else 1.0
    z = (jnp.asarray(images, jnp.float32) / scale - normaliser.mean) / normaliser.std
    if not normaliser.per_image and normaliser.pixel_mean is None and normaliser.whiten is None:
        return z
    z = z.reshape(*z.shape[:-3], -1)
    if normaliser.per_image:
        z = _unit(z - z.mean(axis=-1, keepdims=True))
    if normaliser.pixel_mean is not None:
        z = z - normaliser.pixel_mean
    if normaliser.whiten is not None:
        z = jnp.matmul(z, normaliser.whiten, precision=jax.lax.Precision.HIGHEST)
    return z.reshape(images.shape)


def denormalise(normaliser: Normaliser, images: jax.Array) -> jax.Array:
    """Brings images from model space back to about [0, 1], without clipping.

    The exact inverse of `normalise`, except where `per_image`: the mean and the scale of each
    image were divided out and are lost, so the image comes back only up to them.

    Args:
      normaliser: the one that made the images.
      images: [..., H, W, C] float in model space.

    Returns:
      [..., H, W, C] float32.

    Raises:
      ConfigError: a shape that the normaliser was not fitted on, or integer images.

    Example:
      >>> denormalise(identity((1, 1, 1)), jnp.full((1, 1, 1), 0.5)).tolist()
      [[[0.5]]]
    """
    _check(normaliser, images)
    if images.dtype == jnp.uint8:
        raise ConfigError("images are uint8, expected model space", fix="pass float images")
    z = jnp.asarray(images, jnp.float32)
    z = z.reshape(*z.shape[:-3], -1)
    if normaliser.unwhiten is not None:
        z = jnp.matmul(z, normaliser.unwhiten, precision=jax.lax.Precision.HIGHEST)
    if normaliser.pixel_mean is not None:
        z = z + normaliser.pixel_mean
    return z.reshape(images.shape) * normaliser.std + normaliser.mean


def _unit(z: jax.Array) -> jax.Array:
    """z / ||z||, zero (with a finite gradient) where z is zero."""
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    safe = jnp.where(square > _EPS, square, 1.0)
    return jnp.where(square > _EPS, z / jnp.sqrt(safe), 0.0)


def _check(normaliser: Normaliser, images: jax.Array) -> None:
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    if images.dtype != jnp.uint8 and not floating:
        raise ConfigError(
            f"images have dtype {images.dtype}, expected uint8 or float",
            fix="use uint8 for 0..255 or float32 for [0, 1]",
        )
    channels = normaliser.mean.shape[0]
    if images.ndim < 3 or images.shape[-1] != channels:
        raise ConfigError(
            f"images have shape {tuple(images.shape)}, expected [..., H, W, {channels}]",
            fix="use the normaliser that was fitted on this kind of image",
        )
    fitted = normaliser.whiten if normaliser.whiten is not None else normaliser.pixel_mean
    size = int(np.prod(images.shape[-3:]))
    if fitted is not None and fitted.shape[0] != size:
        raise ConfigError(
            f"images have {size} values each, the normaliser was fitted on {fitted.shape[0]}",
            fix="resize the images to the resolution that the normaliser was fitted on",
        )


def identity(shape: tuple[int, int, int]) -> Normaliser:
    """The normaliser that only brings uint8 to [0, 1].

    Args:
      shape: (H, W, C) of an image.

    Returns:
      `Normaliser` of kind "none".

    Example:
      >>> identity((4, 4, 3)).mean.shape
      (3,)
    """
    channels = shape[-1]
    return Normaliser(mean=jnp.zeros(channels, jnp.float32),
                      std=jnp.ones(channels, jnp.float32), kind="none")


def to_tensors(normaliser: Normaliser) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A normaliser as named tensors and text, for a file.

    Returns:
      ({"mean", "std", and of "pixel_mean", "whiten", "unwhiten" those that exist} -> float32,
      {"kind": ..., "per_image": "true" or "false"}).

    Example:
      >>> tensors, meta = to_tensors(identity((4, 4, 1)))
      >>> sorted(tensors), meta
      (['mean', 'std'], {'kind': 'none', 'per_image': 'false'})
    """
    names = ("mean", "std", *_OPTIONAL)
    found = {name: getattr(normaliser, name) for name in names}
    tensors = {n: np.asarray(a, np.float32) for n, a in found.items() if a is not None}
    flag = "true" if normaliser.per_image else "false"
    return tensors, {"kind": normaliser.kind, "per_image": flag}


def from_tensors(tensors: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> Normaliser:
    """The inverse of `to_tensors`, with everything checked.

    Args:
      tensors: as `to_tensors` returns.
      meta: as `to_tensors` returns.

    Returns:
      `Normaliser`.

    Raises:
      SetFileError: missing, unknown, non-finite or misshaped tensors, or wrong metadata.

    Example:
      >>> from_tensors(*to_tensors(identity((4, 4, 1)))).kind
      'none'
    """
    fix = "write the file again with dd_jax"
    kind, flag = meta.get("kind"), meta.get("per_image")
    if kind not in KINDS or flag not in ("true", "false"):
        raise SetFileError(f"normaliser metadata is kind={kind!r}, per_image={flag!r}", fix=fix)
    odd = set(tensors) - {"mean", "std", *_OPTIONAL}
    if odd or not {"mean", "std"} <= set(tensors):
        raise SetFileError(f"normaliser tensors are {sorted(map(str, tensors))}", fix=fix)
    for name, array in tensors.items():
        if not np.issubdtype(array.dtype, np.floating) or not np.isfinite(array).all():
            raise SetFileError(f"normaliser tensor {name!r} is not finite float", fix=fix)
    mean, std = tensors["mean"], tensors["std"]
    if mean.ndim != 1 or not mean.size or std.shape != mean.shape or not (std > 0).all():
        raise SetFileError(
            f"normaliser mean {mean.shape} and std {std.shape}: expected [C] and positive", fix=fix
        )
    if ("whiten" in tensors) != ("unwhiten" in tensors):
        raise SetFileError("normaliser has only one of whiten and unwhiten", fix=fix)
    sizes = {tensors[n].shape[:1] for n in _OPTIONAL if n in tensors}
    d = next(iter(sizes))[0] if len(sizes) == 1 and () not in sizes else None
    ranks = {"pixel_mean": (d,), "whiten": (d, d), "unwhiten": (d, d)}
    wrong = [n for n in _OPTIONAL if n in tensors and tensors[n].shape != ranks[n]]
    if sizes and (wrong or not d or d % mean.size):
        shapes = {n: tensors[n].shape for n in _OPTIONAL if n in tensors}
        raise SetFileError(f"normaliser tensors do not fit each other: {shapes}", fix=fix)
    arrays = {name: jnp.asarray(array, jnp.float32) for name, array in tensors.items()}
    return Normaliser(**arrays, kind=kind, per_image=flag == "true")
