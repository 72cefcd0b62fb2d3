"""The binary versions of CIFAR-10 and CIFAR-100."""

from __future__ import annotations

import pathlib

import numpy as np

from dd_jax.data.files import PathLike, checked_file, read_regular
from dd_jax.data.split import split_from_arrays
from dd_jax.errors import DataError, unknown
from dd_jax.types import Split

PIXEL_BYTES = 3 * 32 * 32
CIFAR10_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
LABEL_COLUMNS = {
    "coarse": (0, 20, "coarse_label_names.txt"),
    "fine": (1, 100, "fine_label_names.txt"),
}


def read_records(path: PathLike, label_sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Reads one file of records: label bytes, then 3,072 bytes of planar red, green and blue.

    Args:
      path: the file.
      label_sizes: number of values of each label byte: (10,) for CIFAR-10, (20, 100) for
        CIFAR-100.

    Returns:
      (images [N, 32, 32, 3] uint8, labels [N, len(label_sizes)] uint8).

    Raises:
      DataError: the size is no whole number of records, or a label is out of range.

    Example:
      >>> import tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "test_batch.bin"
      >>> _ = path.write_bytes(bytes([7]) + bytes(3072))
      >>> read_records(path, (10,))[1].tolist()
      [[7]]

    Reference: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """
    path, size = checked_file(path)
    record = len(label_sizes) + PIXEL_BYTES
    if size == 0 or size % record:
        raise DataError(
            f"{path}: {size} bytes, expected a multiple of {record} "
            f"(the nearest whole number of records is {size // record * record} bytes)",
            fix="download or copy the file again; take the binary version of the set",
        )
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})", fix="check the file") from None
    if raw.size != size:
        raise DataError(f"{path}: expected {size} bytes, found {raw.size}", fix="read it again")
    raw = raw.reshape(-1, record)
    labels = raw[:, : len(label_sizes)]
    for column, values in enumerate(label_sizes):
        wrong = np.flatnonzero(labels[:, column] >= values)
        if len(wrong):
            raise DataError(
                f"{path}: record {wrong[0]} has label {labels[wrong[0], column]}, expected 0 to "
                f"{values - 1}",
                fix="the file is damaged or of the other CIFAR set: take it again",
            )
    planes = raw[:, len(label_sizes) :].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels.copy()


def _names(path: pathlib.Path, count: int) -> list[str] | None:
    """The names in a text file beside the data, or None where it is missing or does not fit."""
    try:
        text = read_regular(path, max_bytes=2**16).decode()
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError):
        return None
    return lines if len(lines) == count else None


def read_cifar10(folder: PathLike, *, name: str = "cifar10", device: bool = True) -> Split:
    """Reads a folder with `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.

    Args:
      folder: where the files are.
      name: of the set.
      device: as for `from_arrays`.

    Returns:
      `Split` of [N, 32, 32, 3] uint8 images and ten classes.

    Raises:
      DataError: a file is missing or damaged.

    Example:
      >>> read_cifar10("missing")
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: missing/data_batch_1.bin: cannot be read ...
    """
    folder = pathlib.Path(folder)
    parts = [read_records(folder / file, (10,)) for file in CIFAR10_FILES]
    train = np.concatenate([x for x, _ in parts]), np.concatenate([y[:, 0] for _, y in parts])
    images, labels = read_records(folder / "test_batch.bin", (10,))
    names = _names(folder / "batches.meta.txt", 10)
    return split_from_arrays(
        train, (images, labels[:, 0]), name=name, num_classes=10, class_names=names, device=device
    )


def read_cifar100(
    folder: PathLike, *, labels: str = "fine", name: str = "cifar100", device: bool = True
) -> Split:
    """Reads a folder with `train.bin` and `test.bin`.

    Args:
      folder: where the files are.
      labels: "fine" (100 classes) or "coarse" (20).
      name: of the set.
      device: as for `from_arrays`.

    Returns:
      `Split` of [N, 32, 32, 3] uint8 images.

    Raises:
      DataError: a file is missing or damaged.
      ConfigError: unknown `labels`.

    Example:
      >>> read_cifar100("missing", labels="fin")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: unknown CIFAR-100 labels 'fin'; did you mean 'fine'?
    """
    if labels not in LABEL_COLUMNS:
        raise unknown("CIFAR-100 labels", labels, LABEL_COLUMNS)
    column, count, file = LABEL_COLUMNS[labels]
    folder = pathlib.Path(folder)
    train, test = (
        (x, y[:, column])
        for x, y in (read_records(folder / f"{part}.bin", (20, 100)) for part in ("train", "test"))
    )
    names = _names(folder / file, count)
    return split_from_arrays(
        train, test, name=name, num_classes=count, class_names=names, device=device
    )
