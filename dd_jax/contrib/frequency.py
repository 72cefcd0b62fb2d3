"""Images stored as the few frequencies in which the images of their class differ most.

  image = D_H^T F D_W,   F[k, l] learned where the mask of the class is true, else 0

D_n is the orthonormal DCT-II matrix [n, n], so that distances of coefficients are distances of
images. Of an image's H W frequencies `keep` are stored: at the bytes of `ipc` whole images a class
has ipc * H * W / keep of them.

The official code learns the coefficients of the unnormalised DCT, u = s F with s^2 = 4 H W, twice
that where k or l is 0 and four times where both are. A gradient step of rate r on u is one of rate
r / s^2 on F: at 32x32 the official 1e6 is 244 here. The frequencies with k or l equal to 0 then
move twice, and that with both 0 four times, as fast as officially.

Source: Shin, Shin and Moon, Frequency Domain-based Dataset Distillation, NeurIPS 2023.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import check_classes, gather, normalise, rows_of_classes
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError
from dd_jax.synthetic.pixels import pixels
from dd_jax.types import Parameterization, RealData, SyntheticSet

_LEAF = "coefficients"
_CHUNK = 1024


def frequency(masks: Any, *, labels: str = "fixed") -> Parameterization:
    """Images of class c as coefficients at the frequencies `masks[c]`, the same in all channels.

    Decoding the start gives its projection on those frequencies; with all of them, the start.

    Args:
      masks: [K, H, W] bool on the host, equally many true for each class: of `frequency_masks`.
      labels: the label head, as for `pixels`.

    Returns:
      A `Parameterization` whose params are those of `pixels`, with "coefficients" [M, keep, C] in
      place of the images, in row-major order of the frequencies and in group "images". The
      masks, H W bits for each class, are not among them.

    Raises:
      ConfigError: masks of another shape or of unequal counts, unknown head; at `init`, images of
        another size or a number of them that K does not divide.

    Example:
      >>> low = np.zeros((2, 4, 4), bool)
      >>> low[:, :2, :2] = True
      >>> start = SyntheticSet(jnp.ones((4, 4, 4, 1)), jnp.repeat(jnp.eye(2), 2, axis=0))
      >>> few = frequency(low)
      >>> params = few.init(jax.random.key(0), start)
      >>> params["coefficients"].shape
      (4, 4, 1)
    """
    head = pixels(labels=labels)
    positions, (height, width) = _positions(masks)
    classes, keep = positions.shape

    def init(key: jax.Array, start: SyntheticSet) -> dict:
        count, *shape = start.images.shape
        if count % classes or tuple(shape[:2]) != (height, width):
            raise ConfigError(
                f"images have shape {start.images.shape}, expected a multiple of {classes} images "
                f"of {height}x{width}", fix="make the masks of the same data as the start")
        params = head.init(key, start)
        spectra = _transform(params.pop("images"), dct_matrix(height), dct_matrix(width))
        kept = jnp.take_along_axis(spectra.reshape(classes, -1, height * width, shape[2]),
                                   positions[:, None, :, None], axis=2)
        return {**params, _LEAF: kept.reshape(count, keep, shape[2])}

    def decode(params: dict, key: jax.Array) -> SyntheticSet:
        kept = params[_LEAF]
        count, _, channels = kept.shape
        kept = kept.reshape(classes, -1, keep, channels)
        spectra = jnp.zeros((*kept.shape[:2], height * width, channels), kept.dtype)
        # Set, not added: distinct places, so the derivative is a gather.
        spectra = spectra.at[np.arange(classes)[:, None], :, positions].set(
            kept.swapaxes(1, 2), unique_indices=True)
        images = _transform(spectra.reshape(count, height, width, channels),
                            dct_matrix(height).T, dct_matrix(width).T)
        return head.decode({**_rest(params), "images": images}, key)

    def groups(params: dict) -> dict:
        return {**head.groups(_rest(params)), _LEAF: "images"}

    return Parameterization(init=init, decode=decode, groups=groups)


def frequency_masks(
    data: RealData, normaliser: Normaliser, *, keep: int, rows: Any = None
) -> np.ndarray:
    """The frequencies of the largest variance over the images of each class.

    The variance is that of the unnormalised DCT of the mean over the channels, as in the official
    code: against the orthonormal one it counts twice where k or l is 0 and four times where both
    are. Of equal variances the lower row-major frequency wins.

    Args:
      data: real set, on the device or the host; read once, on the host in float64.
      normaliser: of the run.
      keep: frequencies for each class, 1 to H W.
      rows: [K, n] int, the images of each class to look at. None looks at all of them; officially
        they are the n images that the synthetic set starts from.

    Returns:
      [K, H, W] bool with `keep` true for each class.

    Raises:
      ConfigError: keep out of range, or fewer than two rows for each class.
      DataError: a class of fewer than two images.

    Example:
      >>> from dd_jax import data as dd_data
      >>> shades = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((4, 2, 2, 1))
      >>> real = dd_data.from_arrays(shades, np.array([0, 0, 1, 1]))
      >>> frequency_masks(real, dd_data.standardise(real), keep=1)[0].tolist()
      [[True, False], [False, False]]
    """
    height, width, _ = data.spec.shape
    if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= height * width:
        raise ConfigError(f"keep is {keep!r}, expected an integer from 1 to {height * width}",
                          fix="pass keep=64")
    if rows is None:
        check_classes(data, at_least=2)
        rows = rows_of_classes(data)
    elif np.ndim(rows) != 2 or len(rows) != data.spec.num_classes or np.shape(rows)[1] < 2:
        raise ConfigError(f"rows have shape {np.shape(rows)}, expected [{data.spec.num_classes}, "
                          "2 or more]", fix="pass rows_per_class(data, key, n)")
    # What an unnormalised coefficient is larger by, squared, up to a common factor.
    weight = np.where(np.arange(height) == 0, 2, 1)[:, None] * np.where(np.arange(width), 1, 2)
    masks = np.zeros((len(rows), height * width), bool)
    for mask, own in zip(masks, rows):
        spread = weight * _variance(data, normaliser, np.asarray(own))
        mask[np.argsort(-spread.reshape(-1), kind="stable")[:keep]] = True
    return masks.reshape(-1, height, width)


def dct_matrix(size: int) -> np.ndarray:
    """The orthonormal DCT-II of a line as a matrix, [size, size] float32; its inverse is its .T.

    Example:
      >>> bool(np.allclose(dct_matrix(3) @ dct_matrix(3).T, np.eye(3), atol=1e-6))
      True
    """
    return _cosines(size).astype(np.float32)


def _cosines(size: int) -> np.ndarray:
    k = np.arange(size)[:, None]
    scale = np.where(k == 0, 1.0, 2.0) / size
    return np.sqrt(scale) * np.cos(np.pi * k * (2 * np.arange(size) + 1) / (2 * size))


def _transform(images: jax.Array, rows: np.ndarray, cols: np.ndarray) -> jax.Array:
    """rows @ image @ cols.T for each image and channel of [M, H, W, C]."""
    half = jnp.einsum("kh,mhwc->mkwc", rows, images, precision="highest")
    return jnp.einsum("lw,mkwc->mklc", cols, half, precision="highest")


def _variance(data: RealData, normaliser: Normaliser, rows: np.ndarray) -> np.ndarray:
    """[H, W] float64 variance of each orthonormal coefficient of the channel mean."""
    height, width, _ = data.spec.shape
    total, squares = np.zeros((2, height, width))
    for start in range(0, len(rows), _CHUNK):
        images, _ = gather(data, rows[start : start + _CHUNK])
        grey = np.asarray(jnp.mean(normalise(normaliser, images), axis=-1), np.float64)
        spectra = _cosines(height) @ grey @ _cosines(width).T
        total += spectra.sum(axis=0)
        squares += np.square(spectra).sum(axis=0)
    return squares / len(rows) - np.square(total / len(rows))


def _positions(masks: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """[K, keep] int32 row-major places of the true entries, and (H, W)."""
    masks = np.asarray(masks, bool)
    counts = set(masks.reshape(len(masks), -1).sum(axis=1).tolist()) if masks.ndim == 3 else set()
    if len(counts) != 1 or 0 in counts:
        raise ConfigError(
            f"masks of shape {masks.shape} keep {sorted(counts)} frequencies, expected [K, H, W] "
            "with one positive count", fix="pass frequency_masks(data, normaliser, keep=64)")
    flat = np.flatnonzero(masks).reshape(len(masks), -1) % (masks.shape[1] * masks.shape[2])
    return flat.astype(np.int32), masks.shape[1:]


def _rest(params: dict) -> dict:
    return {name: leaf for name, leaf in params.items() if name != _LEAF}
