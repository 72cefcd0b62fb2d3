"""Fitting of normalisers on the host, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Optional

import jax.numpy as jnp
import numpy as np

from dd_jax.data.checks import row_chunks
from dd_jax.data.conventions import BORROWED, STATISTICS, known_as
from dd_jax.data.normalise import LEAST_STD, MOST_STD, Normaliser, identity
from dd_jax.errors import ConfigError, DataError, unknown
from dd_jax.types import RealData

# A channel whose deviation is below this is constant; it is centred and not scaled.
_FLAT = 1e-6


def _unit_chunks(data: RealData) -> Iterator[np.ndarray]:
    """The images in [0, 1] as float64 [b, H, W, C], a chunk at a time."""
    if data.images is None:
        raise DataError(
            f"{data.spec.name}: a normaliser cannot be fitted on an index without images",
            fix="fit it on the full set",
        )
    images = data.images if isinstance(data.images, np.ndarray) else np.asarray(data.images)
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    for _, chunk in row_chunks(images, chunk_bytes=images.itemsize * 2**22):
        yield chunk.astype(np.float64) / scale


def _channel_statistics(data: RealData) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per channel, [C] float64 each, in two passes for accuracy."""
    height, width, _ = data.spec.shape
    pixels = len(data.labels) * height * width
    mean = sum(chunk.sum(axis=(0, 1, 2)) for chunk in _unit_chunks(data)) / pixels
    square = sum(((chunk - mean) ** 2).sum(axis=(0, 1, 2)) for chunk in _unit_chunks(data))
    std = np.sqrt(square / pixels)
    return mean, np.where(std > _FLAT, std, 1.0)


def _given(value: Any, what: str, channels: int) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if array.ndim == 0:
        array = np.repeat(array, channels)
    good = array.shape == (channels,) and (np.abs(array) <= MOST_STD).all()
    if not good or (what == "std" and not (array >= LEAST_STD).all()):
        raise ConfigError(
            f"{what} is {value!r}, expected {channels} finite"
            f"{' positive' if what == 'std' else ''} numbers for pixels in [0, 1], the "
            f"smallest deviation {LEAST_STD:g} and the largest number {MOST_STD:g}",
            fix="pass one number per channel, or None to use the training set's",
        )
    return array


def standardise(data: RealData, *, mean: Any = None, std: Any = None) -> Normaliser:
    """(x - mean) / std per channel, with x in [0, 1].

    Args:
      data: the training set.
      mean: [C] or a number; by default the training set's.
      std: [C] or a number, positive; by default the training set's population deviation, and 1
        for a constant channel.

    Returns:
      `Normaliser` of kind "standardise".

    Raises:
      ConfigError: wrong number of channels, or not finite or positive.
      DataError: `data` has no images.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> data = from_arrays(np.array([[[0]], [[255]]], np.uint8), [0, 1])
      >>> standardise(data).mean.tolist(), standardise(data).std.tolist()
      ([0.5], [0.5])
    """
    channels = data.spec.shape[2]
    found = _channel_statistics(data) if mean is None or std is None else (None, None)
    centre = found[0] if mean is None else _given(mean, "mean", channels)
    scale = found[1] if std is None else _given(std, "std", channels)
    return Normaliser(
        mean=jnp.asarray(centre, jnp.float32),
        std=jnp.asarray(scale, jnp.float32),
        kind="standardise",
    )


def published(data: RealData, *, borrowed: bool = False) -> Normaliser:
    """`standardise` by the numbers that published codes have for data of this name.

    They are not always those of the training set: CIFAR-10's deviation is a fifth too small in all
    codes that descend from DC's, so that steps on pixels are larger by as much.

    Args:
      data: the training set; its name and its number of channels are looked up in
        `conventions.STATISTICS`. The numbers of one that is not there are its own.
      borrowed: CIFAR-100 by the numbers of CIFAR-10, as some codes have it.

    Returns:
      `Normaliser` of kind "standardise".

    Raises:
      DataError: `data` is unknown there and has no images.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> data = from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1], name="mnist")
      >>> round(published(data).std.item(), 4)
      0.3081
    """
    name = known_as(data.spec.name)
    found = STATISTICS.get(BORROWED.get(name, name) if borrowed else name)
    if found is None or len(found.mean) != data.spec.shape[2]:
        return standardise(data)
    return standardise(data, mean=found.mean, std=found.std)


def zca(
    data: RealData,
    *,
    reg: float = 0.1,
    relative: bool = True,
    standardise: bool = True,
    per_image: bool = False,
    centre: bool = True,
) -> Normaliser:
    r"""Whitening that stays close to the image: z (Cov + r I)^{-1/2}.

    Cov = X^T X / N over the flattened, preprocessed training images, with r = reg * tr(Cov) / d
    where `relative` and r = reg otherwise, d = H * W * C. The defaults are those of FRePo;
    `per_image=True, centre=False` is that of KIP, with standardise=False that of RaT-BPTT;
    `relative=False, standardise=False` is that of MTT. Whitening with one and testing with another
    gives chance accuracy, so the normaliser travels with every distilled set.

    Args:
      data: the training set.
      reg: regulariser, at least 0.
      relative: scales `reg` by the mean eigenvalue.
      standardise: per-channel standardisation first; False starts from raw [0, 1] pixels.
      per_image: each image is made zero-mean and of unit L2 norm after that.
      centre: subtracts the mean of every pixel over the set.

    Returns:
      `Normaliser` with `whiten` and `unwhiten`, both [d, d] float32, fitted in float64.

    Raises:
      ConfigError: `reg` is negative or not finite.
      DataError: `data` has no images.

    Warns:
      UserWarning: fewer images than d, so that the regulariser alone fixes some directions.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> pixels = np.random.default_rng(0).integers(0, 256, (50, 2, 2, 1), np.uint8)
      >>> zca(from_arrays(pixels, np.arange(50) % 2)).whiten.shape
      (4, 4)

    Reference: Nguyen, Novak, Xiao and Lee (2021), arXiv:2107.13034 (KIP); Zhou, Nezhadarya and Ba
    (2022), arXiv:2206.00719 (FRePo); Cazenavette et al. (2022), arXiv:2203.11932 (MTT).
    """
    if not np.isfinite(reg) or reg < 0:
        raise ConfigError(f"reg is {reg!r}, expected a number of at least 0", fix="pass reg=0.1")
    channels = data.spec.shape[2]
    count, d = len(data.labels), int(np.prod(data.spec.shape))
    if count < d:
        warnings.warn(
            f"ZCA on {count} images of {d} values: the regulariser alone fixes at least "
            f"{d - count} directions",
            stacklevel=2,
        )
    mean, std = np.zeros(channels), np.ones(channels)
    if standardise:
        mean, std = _channel_statistics(data)
    pixel_mean, cov = _moments(data, mean, std, per_image=per_image, centre=centre)
    whiten, unwhiten = _roots(cov, reg=reg, relative=relative)
    kind = "zca_per_image" if per_image else ("zca" if relative else "zca_absolute")
    return Normaliser(
        mean=jnp.asarray(mean, jnp.float32),
        std=jnp.asarray(std, jnp.float32),
        pixel_mean=jnp.asarray(pixel_mean, jnp.float32) if centre else None,
        whiten=jnp.asarray(whiten, jnp.float32),
        unwhiten=jnp.asarray(unwhiten, jnp.float32),
        kind=kind,
        per_image=per_image,
    )


def _moments(data: RealData, mean, std, *, per_image: bool, centre: bool):
    """Pixel mean [d] and second moment [d, d] of the preprocessed images, float64."""

    def chunks() -> Iterator[np.ndarray]:
        for chunk in _unit_chunks(data):
            flat = ((chunk - mean) / std).reshape(len(chunk), -1)
            if per_image:
                flat = flat - flat.mean(axis=1, keepdims=True)
                norm = np.linalg.norm(flat, axis=1, keepdims=True)
                flat = np.where(norm > _FLAT, flat / np.where(norm > _FLAT, norm, 1.0), 0.0)
            yield flat

    count, d = len(data.labels), int(np.prod(data.spec.shape))
    pixel_mean = np.zeros(d)
    if centre:
        pixel_mean = sum(chunk.sum(axis=0) for chunk in chunks()) / count
    cov = np.zeros((d, d))
    for chunk in chunks():
        chunk = chunk - pixel_mean
        cov += chunk.T @ chunk
    return pixel_mean, cov / count


def _roots(cov: np.ndarray, *, reg: float, relative: bool) -> tuple[np.ndarray, np.ndarray]:
    """(Cov + r I)^{-1/2} and its inverse; directions of zero variance are left as they are."""
    values, vectors = np.linalg.eigh(cov)
    values = np.maximum(values, 0) + reg * (np.trace(cov) / len(cov) if relative else 1.0)
    # Below this only rounding is left of an eigenvalue, and its inverse root would amplify it.
    floor = max(float(values.max()) * 1e-12, 1e-12)
    values = np.where(values > floor, values, 1.0)
    root = np.sqrt(values)
    return (vectors / root) @ vectors.T, (vectors * root) @ vectors.T


NORMALISERS: dict[str, Callable[[RealData], Normaliser]] = {
    "none": lambda data: identity(data.spec.shape),
    "standardise": standardise,
    "published": published,
    "published_cifar": lambda data: published(data, borrowed=True),
    "zca": zca,
    "zca_absolute": lambda data: zca(data, relative=False, standardise=False),
    "zca_uncentred": lambda data: zca(data, centre=False),
    "zca_per_image": lambda data: zca(data, per_image=True, centre=False),
    "zca_per_image_raw": lambda data: zca(data, per_image=True, centre=False, standardise=False),
}


def normalisers(name: Optional[str], data: RealData) -> Normaliser:
    """A normaliser by name, fitted on a training set.

    Args:
      name: "none", "standardise", "published" (by the numbers of published codes for data of
        that name), "published_cifar" (the same, CIFAR-100 by those of CIFAR-10), "zca" (FRePo),
        "zca_absolute" (MTT, DataDAM), "zca_uncentred" (RFAD), "zca_per_image" (KIP),
        "zca_per_image_raw" (RaT-BPTT).
      data: the training set.

    Returns:
      `Normaliser`.

    Raises:
      ConfigError: unknown name.

    Example:
      >>> from dd_jax.data import from_arrays
      >>> normalisers("none", from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1])).kind
      'none'
    """
    if name not in NORMALISERS:
        raise unknown("normaliser", str(name), NORMALISERS)
    return NORMALISERS[name](data)
