"""A reader of .npz files that checks everything before it allocates."""

from __future__ import annotations

import math
import pathlib
import warnings
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib import format as npy

from dd_jax.data.files import MAX_BYTES, PathLike, checked_file, packed_limit, read_limited
from dd_jax.data.split import split_from_arrays, stratified_rows
from dd_jax.errors import ConfigError, DataError, told
from dd_jax.types import Split

MAX_MEMBERS = 64
MAX_HEADER = 10_000
_AGAIN = "write the file again with numpy.savez(path, images=..., labels=...)"
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

# (train images, train labels, test images, test labels): the spellings in common use.
QUADRUPLES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("images", "labels", "test_images", "test_labels"),
)
PAIRS = (("images", "labels"), ("x", "y"), ("x_train", "y_train"), ("train_images", "train_labels"))


def read_npz(path: PathLike, *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Reads numeric arrays from an .npz file, never a pickled object.

    Member names, declared sizes, dtypes and shapes are checked before memory is taken.

    Args:
      path: the file.
      max_bytes: the largest sum of the uncompressed sizes.

    Returns:
      name -> array of integers, floats or booleans.

    Raises:
      DataError: not a zip, truncated, unexpected members, object arrays, sizes that lie.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.npz"
      >>> np.savez(path, images=np.zeros((2, 3, 3), np.uint8), labels=np.array([0, 1]))
      >>> sorted(read_npz(path))
      ['images', 'labels']
    """
    path, size = checked_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _check_members(archive, str(path), size, max_bytes)
            return {name: _read_member(archive, info, str(path)) for name, info in members.items()}
    except DataError:
        raise
    # The zip and header parsers can fail in a dozen ways on hostile bytes; all mean one thing.
    except Exception as error:
        raise DataError(
            f"{path}: not a readable .npz file ({type(error).__name__}: {error})", fix=_AGAIN
        ) from None


def _check_members(archive: zipfile.ZipFile, path: str, size: int, max_bytes: int):
    infos = archive.infolist()
    if not 1 <= len(infos) <= MAX_MEMBERS:
        raise DataError(f"{path}: {len(infos)} members, expected 1 to {MAX_MEMBERS}", fix=_AGAIN)
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removesuffix(".npy")
        if name == info.filename or not name.isidentifier() or name in members:
            raise DataError(
                f"{path}: unexpected member {info.filename!r}, expected distinct plain names "
                "ending in .npy",
                fix=_AGAIN,
            )
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise DataError(f"{path}: member {name!r} is encrypted or unusual", fix=_AGAIN)
        members[name] = info
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise DataError(
            f"{path}: declares {total} bytes, above the limit of {max_bytes}",
            fix="keep such a set as .npy files and pass numpy.load(..., mmap_mode='r')",
        )
    if total > packed_limit(size):
        raise DataError(f"{path}: declares {total} bytes in a file of {size}, too much to be meant",
                        fix=_AGAIN)
    return members


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> np.ndarray:
    where = f"{path}: member {info.filename!r}"
    with archive.open(info) as stream:
        version = npy.read_magic(stream)
        if version not in _READERS:
            raise DataError(f"{where} has npy version {version}, expected 1.0 or 2.0", fix=_AGAIN)
        shape, fortran, dtype = _READERS[version](stream, max_header_size=MAX_HEADER)
        if dtype.kind not in "biuf":
            raise DataError(
                f"{where} has dtype {dtype}, expected numbers; object arrays are never loaded",
                fix="save plain numeric arrays; images of mixed size need resizing first",
            )
        expected = math.prod(shape) * dtype.itemsize
        declared = info.file_size - stream.tell()
        if min(shape, default=0) < 0 or expected != declared:
            raise DataError(
                f"{where} declares shape {shape}, {expected} bytes, but holds {declared}",
                fix=_AGAIN,
            )
        payload = read_limited(stream, expected + 1)
    if len(payload) != expected:
        raise DataError(f"{where}: expected {expected} bytes, found {len(payload)}", fix=_AGAIN)
    array = np.frombuffer(payload, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="))


def from_npz(
    path: PathLike,
    *,
    test_fraction: float | None = None,
    seed: int = 0,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    device: bool = True,
) -> Split:
    """Reads a data set from an .npz file.

    The file holds x_train, y_train, x_test and y_test (or train_images, train_labels, test_images
    and test_labels), or one part as images and labels (or x and y), from which a seeded
    stratified test part is then taken.

    Args:
      path: the file.
      test_fraction: share of each class for the test part, where the file has none; by default 0.2.
      seed: of that split.
      name: of the set, by default the file's.
      class_names: K names, by default "0", "1", ...
      device: as for `from_arrays`.

    Returns:
      `Split`.

    Raises:
      DataError: damaged file, missing keys, or what `from_arrays` refuses.
      ConfigError: a `test_fraction` beside a test part.

    Warns of arrays that are not read.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.npz"
      >>> np.savez(path, images=np.zeros((8, 3, 3), np.uint8), labels=np.arange(8) % 2)
      >>> len(from_npz(path, test_fraction=0.25).test.labels)
      2
    """
    arrays = read_npz(path)
    made = dict(name=name or pathlib.Path(path).stem, class_names=class_names, device=device)
    for keys in QUADRUPLES:
        if all(key in arrays for key in keys):
            if test_fraction is not None:
                raise ConfigError(f"{path} has a test part of its own, and test_fraction is "
                                  f"{told(test_fraction)}", fix="leave it out")
            _tell_unread(arrays, keys, path)
            train_x, train_y, test_x, test_y = (arrays[key] for key in keys)
            return split_from_arrays((train_x, _flat(train_y)), (test_x, _flat(test_y)), **made)
    images, labels = _one_part(arrays, path)
    if len(images) != len(labels):
        raise DataError(f"{path}: {len(images)} images but {len(labels)} labels", fix=_AGAIN)
    fraction = 0.2 if test_fraction is None else test_fraction
    train, test = stratified_rows(labels, test_fraction=fraction, seed=seed)
    return split_from_arrays((images[train], labels[train]), (images[test], labels[test]), **made)


def _tell_unread(arrays: Mapping[str, np.ndarray], keys: Sequence[str], path: PathLike) -> None:
    unread = sorted(set(arrays) - set(keys))
    if unread:
        warnings.warn(f"{path}: left out the arrays {', '.join(unread)[:200]}", stacklevel=3)


def _one_part(arrays: Mapping[str, np.ndarray], path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    for keys in PAIRS:
        if all(key in arrays for key in keys):
            images, labels = arrays[keys[0]], _flat(arrays[keys[1]])
            if images.ndim < 3 or labels.ndim != 1:
                raise DataError(
                    f"{path}: images {images.shape} and labels {labels.shape}, expected "
                    "[N, H, W, C] and [N]",
                    fix="one-hot labels need argmax(1)",
                )
            _tell_unread(arrays, keys, path)
            return images, labels
    raise DataError(
        f"{path}: holds {', '.join(sorted(arrays))}",
        fix="name the arrays images and labels, or x_train, y_train, x_test and y_test",
    )


def _flat(labels: np.ndarray) -> np.ndarray:
    """Labels saved as a column [N, 1] are common and mean one thing only."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
