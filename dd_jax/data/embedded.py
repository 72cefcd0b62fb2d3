"""The data set inside the package: a class-balanced part of Fashion-MNIST.

The first 800 training and the first 200 test images of each class, in the order of the official
files; 28x28 pixels, one channel, ten classes. Stored class by class, so that labels need no bytes.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import lzma

import numpy as np

from dd_jax.data.split import split_from_arrays
from dd_jax.errors import DataError
from dd_jax.types import Split

NAME = "fashion_mnist_10k"
FILE = f"{NAME}.bin.xz"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
TRAIN_PER_CLASS = 800
TEST_PER_CLASS = 200
_PIXELS = 28 * 28
_BYTES = 10 * (TRAIN_PER_CLASS + TEST_PER_CLASS) * _PIXELS
_AGAIN = "install dd_jax again"


def embedded_arrays(folder=None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Decodes the embedded file after checking its SHA-256.

    Args:
      folder: where the file and its `SHA256` are, by default inside the package.

    Returns:
      (train images [8000, 28, 28] uint8, train labels [8000] int32, test images [2000, 28, 28],
      test labels [2000]), class-major.

    Raises:
      DataError: missing or damaged file.

    Example:
      >>> embedded_arrays()[2].shape
      (2000, 28, 28)

    Reference: Xiao, Rasul and Vollgraf, Fashion-MNIST (2017), arXiv:1708.07747. MIT licence,
    Copyright (c) 2017 Zalando SE, https://tech.zalando.com.
    """
    folder = folder or importlib.resources.files("dd_jax.data") / "embedded"
    try:
        packed = (folder / FILE).read_bytes()
        expected = (folder / "SHA256").read_text("ascii").split()[0]
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"the embedded set cannot be read ({error})", fix=_AGAIN) from None
    found = hashlib.sha256(packed).hexdigest()
    if found != expected:
        raise DataError(f"{FILE}: SHA-256 is {found}, expected {expected}", fix=_AGAIN)
    try:
        raw = lzma.decompress(packed, format=lzma.FORMAT_XZ)
    except lzma.LZMAError as error:
        raise DataError(f"{FILE}: cannot be decompressed ({error})", fix=_AGAIN) from None
    if len(raw) != _BYTES:
        raise DataError(f"{FILE}: {len(raw)} bytes, expected {_BYTES}", fix=_AGAIN)
    images = np.frombuffer(raw, np.uint8).reshape(-1, 28, 28)
    count = 10 * TRAIN_PER_CLASS
    classes = np.arange(10, dtype=np.int32)
    train, test = np.repeat(classes, TRAIN_PER_CLASS), np.repeat(classes, TEST_PER_CLASS)
    return images[:count], train, images[count:], test


def load_embedded(*, device: bool = True) -> Split:
    """The embedded Fashion-MNIST part as a `Split`; needs no network and no other package.

    Args:
      device: as for `from_arrays`.

    Returns:
      `Split` with 8,000 training and 2,000 test images of [28, 28, 1].

    Raises:
      DataError: missing or damaged file.

    Example:
      >>> load_embedded().train.class_counts.tolist()[:2]
      [800, 800]
    """
    train_x, train_y, test_x, test_y = embedded_arrays()
    return split_from_arrays(
        (train_x, train_y),
        (test_x, test_y),
        name=NAME,
        class_names=CLASS_NAMES,
        device=device,
    )
