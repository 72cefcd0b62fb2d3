"""From arrays to `RealData`: the one door through which every reader goes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Optional

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import refuse_forked
from dd_jax.data.checks import check_class_count, check_images, check_labels, row_chunks
from dd_jax.errors import ConfigError, DataError
from dd_jax.types import DataSpec, RealData


def from_arrays(
    images: Any,
    labels: Any,
    *,
    name: str = "custom",
    num_classes: Optional[int] = None,
    class_names: Optional[Sequence[str]] = None,
    allow_missing: bool = False,
    layout: Optional[str] = None,
    device: bool = True,
) -> RealData:
    """Validates images and labels and puts them on the device, or keeps the images on the host.

    Everything is copied on entry, so that changing the arrays afterwards changes nothing. The one
    exception is a `numpy.memmap` with `device=False`, which is kept as it is.

    Args:
      images: [N, H, W, C] or [N, H, W]: uint8; or floats in [0, 1] (kept as float32, or turned
        into uint8 when every value is k/255); or whole numbers in 0..255 (turned into uint8).
      labels: [N] integers in 0..K-1.
      name: a short name for files and tables.
      num_classes: K; by default one above the largest label.
      class_names: K names in label order, or label -> name; by default "0", "1", ...
      allow_missing: True accepts a class without images.
      layout: "NHWC" or "NCHW" says what the axes of images are; by default [N, H, W, C] is taken
        for granted, and what looks like [N, C, H, W] refused.
      device: False keeps `images` a NumPy array for sets that do not fit on the device.

    Returns:
      `RealData` with `class_rows` [K, R] padded by cyclic repetition of each class's rows.

    Raises:
      DataError: the images or labels cannot be what they should be; says what to change.
      ConfigError: num_classes and class_names contradict each other; or the process was forked
        from one that has used JAX.

    Example:
      >>> data = from_arrays(np.zeros((3, 4, 4), np.uint8), [0, 1, 0])
      >>> data.images.shape, data.class_counts.tolist(), data.class_rows.tolist()
      ((3, 4, 4, 1), [2, 1], [[0, 2], [1, 1]])
    """
    refuse_forked()
    num_classes, names = check_class_count(num_classes, class_names, name)
    keep = not device and isinstance(images, np.memmap)
    pixels = check_images(images, name=name, copy=not keep, layout=layout)
    targets, known = check_labels(
        labels, len(pixels), name=name, num_classes=num_classes,
        allow_missing=allow_missing, class_names=names,
    )  # fmt: skip
    rows, counts = class_table(targets, known)
    spec = DataSpec(
        name=str(name),
        shape=tuple(int(n) for n in pixels.shape[1:]),
        num_classes=known,
        class_names=names or tuple(str(i) for i in range(known)),
    )
    return RealData(
        images=jnp.asarray(pixels) if device else pixels,
        labels=jnp.asarray(targets),
        class_rows=jnp.asarray(rows),
        class_counts=jnp.asarray(counts),
        spec=spec,
    )


def class_table(labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of each class as one rectangle.

    Args:
      labels: [N] int32.
      num_classes: K.

    Returns:
      (rows [K, R] int32, cyclically padded; zeros for an empty class, counts [K] int32).

    Example:
      >>> class_table(np.array([1, 0, 1, 1]), 2)[0].tolist()
      [[1, 1, 1], [0, 2, 3]]
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.int32)
    order = np.argsort(labels, kind="stable").astype(np.int32)
    starts = np.cumsum(counts) - counts
    # A modulus of at least 1 and a clipped start keep empty classes in range.
    column = np.arange(counts.max())[None, :] % np.maximum(counts, 1)[:, None]
    rows = order[np.minimum(starts[:, None] + column, len(labels) - 1)]
    return np.where(counts[:, None] > 0, rows, 0).astype(np.int32), counts


def rows_of_classes(data: RealData) -> list[np.ndarray]:
    """The rows of each class, ascending; an empty class has none. NumPy, outside jit.

    Example:
      >>> [rows.tolist() for rows in rows_of_classes(
      ...   from_arrays(np.zeros((3, 1, 1), np.uint8), [0, 1, 0]))]
      [[0, 2], [1]]
    """
    tables, counts = np.asarray(data.class_rows), np.asarray(data.class_counts)
    return [table[:count] for table, count in zip(tables, counts)]


def check_classes(data: RealData, *, at_least: int = 1) -> None:
    """Refuses a set in which some class has too few rows. For use before compilation.

    Args:
      data: real set with concrete (not traced) counts.
      at_least: the smallest number of rows a class may have.

    Raises:
      DataError: names the smallest such class and its size.

    Example:
      >>> check_classes(from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1]))
    """
    counts = np.asarray(data.class_counts)
    worst = int(counts.argmin())
    if counts[worst] < at_least:
        raise DataError(
            f"{data.spec.name}: class {worst} ({data.spec.class_names[worst]}) has "
            f"{counts[worst]} images, expected at least {at_least}",
            fix="ask for fewer images per class, or leave that class out",
        )


def as_index(data: RealData) -> RealData:
    """The same set without its images: what a step needs of a host-fed set.

    Example:
      >>> as_index(from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1])).images is None
      True
    """
    return dataclasses.replace(data, images=None)


def one_class(data: RealData, label: jax.Array | int) -> RealData:
    """The same set for samplers that go class by class: they find one class, of any number.

    Args:
      data: real set or its index.
      label: [] int32, traced or not.

    Returns:
      `RealData` whose `class_rows` and `class_counts` have one row; images and labels are all
      there, and so are the classes of its spec.

    Example:
      >>> data = from_arrays(np.zeros((3, 1, 1), np.uint8), [0, 1, 0])
      >>> one_class(data, 1).class_rows[0, 0].item()
      1
    """
    return dataclasses.replace(data, class_rows=data.class_rows[label][None],
                               class_counts=data.class_counts[label][None])


def gather(data: RealData, rows: Any) -> tuple[jax.Array, jax.Array]:
    """Images and labels at given rows; pure, and usable inside jit for a set on the device.

    Args:
      data: real set.
      rows: [...] int32 in 0..N-1.

    Returns:
      (images [..., H, W, C] in the stored dtype, labels [...] int32).

    Raises:
      ConfigError: the set has no images, or host images are asked for inside jit.

    Example:
      >>> data = from_arrays(np.zeros((3, 4, 4), np.uint8), [0, 1, 0])
      >>> gather(data, jnp.array([[0, 1]]))[0].shape
      (1, 2, 4, 4, 1)
    """
    if data.images is None:
        raise ConfigError(
            f"{data.spec.name}: this is an index without images",
            fix="gather on the host from the full set and pass the batch to the step",
        )
    if not isinstance(data.images, np.ndarray):
        return data.images[rows], data.labels[rows]
    try:
        host_rows = np.asarray(rows)
    except jax.errors.TracerArrayConversionError:
        raise ConfigError(
            f"{data.spec.name}: images live on the host and cannot be gathered inside jit",
            fix="gather outside jit, or load the set with device=True",
        ) from None
    return jnp.asarray(data.images[host_rows]), data.labels[host_rows]


def require_on_device(data: RealData, who: str) -> None:
    """Refuses a set whose images a compiled function cannot look at.

    Args:
      data: real set.
      who: needs them, such as "a teacher".

    Raises:
      ConfigError: the images are on the host, or there are none.

    Example:
      >>> host = from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1], device=False)
      >>> require_on_device(host, "a teacher")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: ...: a teacher looks at images on the device; load the set with ...
    """
    if data.images is None or isinstance(data.images, np.ndarray):
        raise ConfigError(f"{data.spec.name}: {who} looks at images on the device",
                          fix="load the set with device=True")


def fingerprint(data: RealData) -> str:
    """SHA-256 of the specification, the images and the labels.

    Args:
      data: real set with images, on the device or on the host.

    Returns:
      64 hexadecimal digits, equal for equal content wherever it lives.

    Raises:
      DataError: the set is an index without images.

    Example:
      >>> len(fingerprint(from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1])))
      64
    """
    if data.images is None:
        raise DataError(f"{data.spec.name}: no images to hash", fix="pass the full set")
    images = data.images if isinstance(data.images, np.ndarray) else np.asarray(data.images)
    head = [dataclasses.asdict(data.spec), str(images.dtype), list(images.shape)]
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for _, chunk in row_chunks(images):
        digest.update(np.ascontiguousarray(chunk).data)
    digest.update(np.asarray(data.labels).astype("<i4").tobytes())
    return digest.hexdigest()
