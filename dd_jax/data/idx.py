"""The idx format of MNIST and its relatives, plain or gzip-compressed."""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import numpy as np

from dd_jax.data.files import MAX_BYTES, PathLike, checked_file, packed_limit, read_limited
from dd_jax.errors import DataError

# Third byte of the magic number -> element type; idx is big-endian throughout.
DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_DIMS = 4
_AGAIN = "download or copy the file again"


def read_idx(path: PathLike, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Reads one idx or idx.gz file and accepts it only when every byte is accounted for.

    Args:
      path: the file; gzip is recognised by its first bytes, not by its name.
      max_bytes: the largest array that the header may declare.

    Returns:
      Array in native byte order: uint8, int8, int16, int32, float32 or float64.

    Raises:
      DataError: wrong magic number, impossible dimensions, truncated or over-long content,
        damaged gzip. Names the file, the expected and the found bytes.

    Example:
      >>> import tempfile, pathlib
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels"
      >>> _ = path.write_bytes(b"\\0\\0\\x08\\x01" + b"\\0\\0\\0\\x02" + b"\\x05\\x07")
      >>> read_idx(path).tolist()
      [5, 7]

    Reference: the file format section of the MNIST database page, LeCun, Cortes and Burges.
    """
    path, size = checked_file(path)
    try:
        with open(path, "rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            if not packed:
                return _decode(stream, str(path), max_bytes)
            with gzip.GzipFile(fileobj=stream) as unpacked:
                return _decode(unpacked, str(path), min(max_bytes, packed_limit(size)))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or truncated file ({error})", fix=_AGAIN) from None


def _decode(stream, path: str, max_bytes: int) -> np.ndarray:
    magic = read_limited(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES:
        raise DataError(
            f"{path}: expected the 4 bytes of an idx magic number, found {magic.hex() or 'none'}",
            fix="check that this is an idx file (an HTML error page is a common mistake)",
        )
    rank = magic[3]
    if not 1 <= rank <= MAX_DIMS:
        raise DataError(f"{path}: {rank} dimensions, expected 1 to {MAX_DIMS}", fix=_AGAIN)
    header = read_limited(stream, 4 * rank)
    if len(header) < 4 * rank:
        raise DataError(
            f"{path}: expected {4 * rank} bytes of dimensions, found {len(header)}", fix=_AGAIN
        )
    shape = struct.unpack(f">{rank}I", header)
    dtype = np.dtype(DTYPES[magic[2]])
    expected = math.prod(shape) * dtype.itemsize
    if not 0 < expected <= max_bytes:
        raise DataError(
            f"{path}: the header declares shape {shape}, {expected} bytes, "
            f"expected between 1 and {max_bytes}",
            fix=_AGAIN,
        )
    payload = read_limited(stream, expected + 1)
    if len(payload) != expected:
        found = f"more than {expected}" if len(payload) > expected else str(len(payload))
        raise DataError(
            f"{path}: expected {expected} bytes for shape {shape}, found {found}", fix=_AGAIN
        )
    array = np.frombuffer(payload, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def read_idx_pair(images_path: PathLike, labels_path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Reads an image file and its label file and checks that they belong together.

    Args:
      images_path: idx file of uint8 [N, H, W] or [N, H, W, C].
      labels_path: idx file of uint8 [N].

    Returns:
      (images uint8, labels [N] uint8).

    Raises:
      DataError: as `read_idx`; wrong rank or type; counts that differ.

    Example:
      >>> import tempfile, pathlib
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> _ = (folder / "x").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 9]))
      >>> _ = (folder / "y").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 4]))
      >>> read_idx_pair(folder / "x", folder / "y")[0].shape
      (1, 1, 1)
    """
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{images_path}: holds {images.dtype} {images.shape}, expected uint8 [N, H, W]",
            fix="check that the image and label files are not swapped",
        )
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise DataError(
            f"{labels_path}: holds {labels.dtype} {labels.shape}, expected uint8 [N]",
            fix="check that the image and label files are not swapped",
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels",
            fix="take both files from the same part of the set",
        )
    return images, labels
