"""Validation of raw images and labels, before anything reaches a device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple, Optional

import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, DataError, told

MAX_CLASSES = 1_000_000
_CHUNK_BYTES = 64 * 2**20
LAYOUTS = ("NHWC", "NCHW")


class Range(NamedTuple):
    """What one pass over float or integer images found."""

    low: float
    high: float
    bad: int
    first_bad: Optional[tuple[int, ...]]
    integral: bool
    levels: bool  # every value is k / 255 up to float32 rounding


def row_chunks(array: Any, *, chunk_bytes: int = _CHUNK_BYTES):
    """Yields (start, rows) so that a memory-mapped array is never read whole.

    Example:
      >>> [start for start, _ in row_chunks(np.zeros((3, 4)), chunk_bytes=64)]
      [0, 2]
    """
    step = max(1, chunk_bytes // max(1, array.nbytes // len(array)))
    for start in range(0, len(array), step):
        yield start, np.asarray(array[start : start + step])


def scan(images: np.ndarray) -> Range:
    """One chunked pass for the range, the non-finite values and the kind of numbers."""
    low, high, bad, first, integral, levels = np.inf, -np.inf, 0, None, True, True
    for start, chunk in row_chunks(images):
        chunk = chunk.astype(np.float64)
        finite = np.isfinite(chunk)
        if not finite.all():
            if first is None:
                where = np.argwhere(~finite)[0]
                first = (start + int(where[0]), *(int(i) for i in where[1:]))
            bad += int(chunk.size - finite.sum())
            continue
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
        integral = integral and bool((chunk == np.rint(chunk)).all())
        # 255 * x is off by at most 255 * 2^-24, however k / 255 was computed in float32.
        levels = levels and bool((np.abs(chunk * 255 - np.rint(chunk * 255)) < 4e-5).all())
    return Range(low, high, bad, first, integral, levels)


def check_images(
    images: Any, *, name: str, copy: bool, layout: Optional[str] = None
) -> np.ndarray:
    """Brings raw images to [N, H, W, C], uint8 or float32 in [0, 1], or refuses them.

    Args:
      images: [N, H, W, C] or [N, H, W], uint8, other integers in 0..255 or floats.
      name: of the set, for messages.
      copy: False leaves an array that needs no conversion as it is (a memmap stays a memmap).
      layout: what the axes are: "NHWC", or "NCHW" to have them moved; None to look at the shape.

    Returns:
      NumPy array on the host.

    Raises:
      DataError: wrong rank, empty, non-finite, or a range that could mean two things.
      ConfigError: an unknown layout.

    Example:
      >>> check_images(np.full((1, 2, 2), 0.2, np.float32), name="toy", copy=True).dtype
      dtype('uint8')
    """
    array = _as_array(images, name, "images")
    number = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    if not number:
        raise DataError(
            f"{name}: images have dtype {array.dtype}, expected uint8 or float",
            fix="pass one numeric array [N, H, W, C]; images of mixed size need resizing first",
        )
    if array.ndim == 3:
        array = array[..., None]
    if layout not in (None, *LAYOUTS):
        raise ConfigError(f"{name}: layout is {told(layout)}, expected one of {LAYOUTS} or None",
                          fix="leave it out")
    if layout == "NCHW" and array.ndim == 4:
        array = array.transpose(0, 2, 3, 1)
    _check_layout(array, name, guess=layout is None)
    if array.dtype == np.uint8:
        return np.array(array) if copy else array
    return _convert(array, name=name, copy=copy)


def _as_array(value: Any, name: str, what: str) -> np.ndarray:
    """The NumPy array of what a user gave; lists of images of several sizes make none."""
    try:
        return value if isinstance(value, np.ndarray) else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{name}: {what} are {told(value)} that makes no array ({str(error)[:100]})",
            fix="pass one numeric array; images of mixed size need resizing first",
        ) from None


def _check_layout(array: np.ndarray, name: str, *, guess: bool) -> None:
    if array.ndim != 4:
        raise DataError(
            f"{name}: images have shape {array.shape}, expected [N, H, W, C] or [N, H, W]",
            fix="reshape them to [N, H, W, C]",
        )
    if 0 in array.shape:
        raise DataError(
            f"{name}: images have shape {array.shape}, which holds no pixel",
            fix="pass at least one image of at least one pixel",
        )
    # A height of 1, 3 or 4 beside more than 4 channels is in practice the channel-first layout.
    if guess and array.shape[3] > 4 and array.shape[1] in (1, 3, 4) and array.shape[2] > 4:
        raise DataError(
            f"{name}: images have shape {array.shape}, which looks like [N, C, H, W]",
            fix="pass images.transpose(0, 2, 3, 1), or layout='NHWC' if they are that low",
        )


def _convert(array: np.ndarray, *, name: str, copy: bool) -> np.ndarray:
    found = scan(array)
    span = f"values in [{found.low:.6g}, {found.high:.6g}]"
    if found.bad:
        raise DataError(
            f"{name}: images hold {found.bad} NaN or Inf, the first at index {found.first_bad}",
            fix="remove or repair those images",
        )
    if found.low < 0:
        raise DataError(
            f"{name}: images hold {span}, expected uint8, floats in [0, 1] or 0..255",
            fix="pass raw pixels: the set's normaliser standardises them itself",
        )
    integers = jnp.issubdtype(array.dtype, jnp.integer)
    if found.high > 255:
        raise DataError(
            f"{name}: images hold {span}, above 255",
            fix="scale them to floats in [0, 1] by dividing by the largest possible value",
        )
    if integers and found.high <= 1:
        raise DataError(
            f"{name}: {array.dtype} images hold only {span}: 0/1 masks or almost black 0..255",
            fix="pass images.astype('float32') for a [0, 1] range or .astype('uint8') for 0..255",
        )
    if found.high > 1:
        if not found.integral:
            raise DataError(
                f"{name}: images hold fractions and {span}, neither [0, 1] nor whole 0..255",
                fix="divide by 255 if the range is 0..255, or clip to [0, 1] if it is that",
            )
        return array.astype(np.uint8)
    wide = array.dtype in (np.float32, np.float64)  # narrower floats cannot tell k / 255 apart
    if not copy and isinstance(array, np.memmap) and array.dtype == np.float32:
        return array
    if found.levels and wide:
        return np.rint(np.asarray(array, np.float64) * 255).astype(np.uint8)
    return array.astype(np.float32)


def check_labels(
    labels: Any,
    count: int,
    *,
    name: str,
    num_classes: Optional[int],
    allow_missing: bool,
    class_names: Optional[Sequence[str]] = None,
) -> tuple[np.ndarray, int]:
    """Brings labels to [N] int32 in 0..K-1, or refuses them with the likely cause.

    Args:
      labels: [N] integers.
      count: N, the number of images.
      name: of the set, for messages.
      num_classes: K, or None for one above the largest label.
      allow_missing: True accepts classes without a row.
      class_names: only to name a missing class.

    Returns:
      (labels [N] int32, K).

    Raises:
      DataError: anything but integers in 0..K-1, one per image, every class present.

    Example:
      >>> check_labels([0, 1, 1], 3, name="toy", num_classes=None, allow_missing=False)[1]
      2
    """
    array = _as_array(labels, name, "labels")
    _check_label_kind(array, name)
    if len(array) != count:
        raise DataError(
            f"{name}: {count} images but {len(array)} labels",
            fix="pass one label per image, in the same order",
        )
    if array.min() < 0:
        raise DataError(
            f"{name}: labels hold negative values {_some(array[array < 0])}",
            fix="drop those rows: -1 commonly marks unlabelled images",
        )
    high = int(array.max())
    known = num_classes or (high + 1)
    if int(array.min()) == 1 and (high == known or (num_classes is None and not allow_missing)):
        raise DataError(
            f"{name}: labels run from 1 to {high}, expected 0 to {high - 1}",
            fix="they seem to start at 1: pass labels - 1",
        )
    if high >= known:
        raise DataError(
            f"{name}: labels hold {_some(array[array >= known])}, expected 0 to {known - 1}",
            fix="pass the right num_classes, or drop or renumber those rows",
        )
    if known > MAX_CLASSES or (num_classes is None and not allow_missing and known > count):
        raise DataError(
            f"{name}: the largest label is {high} but there are only {count} images",
            fix="renumber the labels 0..K-1, for example with numpy.unique(return_inverse=True)",
        )
    counts = np.bincount(array, minlength=known)
    if not allow_missing and not counts.all():
        raise _missing(name, np.flatnonzero(counts == 0), class_names)
    return array.astype(np.int32), known


def _check_label_kind(array: np.ndarray, name: str) -> None:
    if array.ndim == 2 and array.shape[1] > 1:
        raise DataError(
            f"{name}: labels have shape {array.shape}, which looks like one-hot or soft labels",
            fix="pass labels.argmax(1), integers of shape [N]",
        )
    if array.ndim != 1:
        raise DataError(
            f"{name}: labels have shape {array.shape}, expected [N]", fix="pass labels.reshape(-1)"
        )
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise DataError(
            f"{name}: labels have dtype {array.dtype}, expected integers 0..K-1",
            fix="pass labels.astype('int32') if they are whole numbers; text needs a numbering",
        )


def _missing(name: str, empty: np.ndarray, class_names: Optional[Sequence[str]]) -> DataError:
    shown = [f"{i} ({class_names[i]})" if class_names else str(i) for i in empty[:5].tolist()]
    more = "" if len(empty) <= 5 else f" and {len(empty) - 5} more"
    return DataError(
        f"{name}: no image of class {', '.join(shown)}{more}",
        fix="renumber the labels without gaps, or pass allow_missing=True (and num_classes)",
    )


def _some(values: np.ndarray) -> str:
    distinct = np.unique(values)
    tail = "" if len(distinct) <= 5 else ", ..."
    return f"{', '.join(str(v) for v in distinct[:5].tolist())}{tail} ({len(values)} rows)"


def _names(class_names: Any, name: str) -> tuple[str, ...]:
    """Names in the order of labels: of a list, or of a mapping from every label to its name."""
    if isinstance(class_names, Mapping):
        if sorted(class_names, key=str) != sorted(range(len(class_names)), key=str):
            raise ConfigError(
                f"{name}: class_names has the keys {told(str(list(class_names)))}, expected 0 to "
                f"{len(class_names) - 1}", fix="pass a list of names in label order")
        class_names = [class_names[label] for label in range(len(class_names))]
    if isinstance(class_names, (str, bytes, Set)) or not isinstance(class_names, Iterable):
        raise ConfigError(f"{name}: class_names is {told(class_names)}, expected a list of names",
                          fix="pass one name per class, in label order")
    names = tuple(class_names)
    for each in names:
        if not isinstance(each, (str, int, np.integer)):
            raise ConfigError(f"{name}: a class name is {told(each)}, expected text",
                              fix="pass one name per class, in label order")
    return tuple(map(str, names))


def check_class_count(num_classes: Optional[int], class_names: Optional[Sequence[str]], name: str):
    """Brings the two ways of stating K together.

    Returns:
      (K or None, names as a tuple or None).

    Raises:
      ConfigError: K is no positive integer, or differs from the number of names, or these are no
        list.
    """
    if num_classes is not None:
        if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)):
            raise ConfigError(f"{name}: num_classes is {num_classes!r}", fix="pass an integer")
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ConfigError(f"{name}: num_classes is {num_classes}", fix="pass 1 or more")
        num_classes = int(num_classes)
    if class_names is None:
        return num_classes, None
    names = _names(class_names, name)
    if not names or num_classes not in (None, len(names)):
        raise ConfigError(
            f"{name}: {len(names)} class names for {num_classes} classes",
            fix="pass one name per class, in label order",
        )
    return len(names), names
