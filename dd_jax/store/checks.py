"""What a distilled set must be, whether it comes from a run or from a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from dd_jax.data.normalise import LEAST_STD, MOST_STD, Normaliser
from dd_jax.errors import SetFileError, nearest
from dd_jax.store.label_store import check_record
from dd_jax.store.record import DistilledSet
from dd_jax.synthetic.labels import LABEL_KINDS
from dd_jax.types import DataSpec

_FITTED = "save the set with the normaliser that was fitted to its data"


def validate(distilled: DistilledSet) -> None:
    """Checks a set as `save` and `load` do; of its label store only what the set says of it.

    Raises:
      SetFileError: naming the first field that is wrong, what it is and what was expected.
    """
    synthetic, spec, kind = distilled.synthetic, distilled.spec, distilled.label_kind
    _check_kind(kind, distilled.label_scale)
    images = _check_images(synthetic.images, spec)
    labels = _check_labels(synthetic.labels, len(images), spec, kind)
    _check_label_values(kind, labels, spec)
    _check_temperature(synthetic.log_temperature)
    _check_rate(synthetic.learning_rate)
    _check_weights(synthetic.weights, len(images))
    _check_normaliser(distilled.normaliser, spec)
    check_record(distilled)


def _check_kind(kind: Any, scale: Any) -> None:
    if kind not in LABEL_KINDS:
        raise SetFileError(
            f"label_kind is {str(kind)[:60]!r}, which is unknown",
            fix=nearest(str(kind), LABEL_KINDS)
        )
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not number or not 0 < scale < 1e30 or (kind == "classes" and scale != 1):
        raise SetFileError(
            f"label_scale is {str(scale)[:60]}, expected a finite number above 0, and 1 for labels "
            "that are classes",
            fix="pass label_scale=1.0 unless the labels were scaled",
        )


def _check_images(value: Any, spec: DataSpec) -> np.ndarray:
    images = _numbers("images", value, "float32", "uint8")
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(spec.shape) or not len(images):
        expected = ", ".join(str(n) for n in spec.shape)
        raise SetFileError(
            f"images have shape {images.shape}, the spec's shape asks for [M, {expected}] with "
            "M of at least 1",
            fix="give the spec of the data that the set was distilled from",
        )
    return images


def _check_labels(value: Any, count: int, spec: DataSpec, kind: str) -> np.ndarray:
    labels = _numbers("labels", value, "int32" if kind == "classes" else "float32")
    free = kind == "representations" and labels.ndim == 2 and labels.shape[1] > 0
    expected = (count,) if kind == "classes" else (
        count, labels.shape[-1] if free else spec.num_classes)
    if labels.shape != expected:
        raise SetFileError(
            f"labels have shape {labels.shape}, expected {expected} of kind {kind!r}: one for each "
            f"of {count} images, and unless they are class numbers one column for each of "
            f"{spec.num_classes} classes (num_classes)",
            fix="keep images and labels of the same selection, and the spec of their data",
        )
    return labels


def _check_label_values(kind: str, labels: np.ndarray, spec: DataSpec) -> None:
    """Checks that the labels are what their kind says, as far as values can show it."""
    if kind == "classes":
        wrong = (labels < 0) | (labels >= spec.num_classes)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise SetFileError(
                f"label_kind is 'classes', but row {row} of labels is {labels[row]}, expected 0 to "
                f"{spec.num_classes - 1}", fix="count classes from 0, as the class names are")
        return
    sums = labels.sum(axis=1)
    if kind == "one_hot":
        wrong = (labels.max(axis=1) != 1) | (np.count_nonzero(labels, axis=1) != 1)
    elif kind == "probabilities":
        wrong = (labels.min(axis=1) < 0) | (np.abs(sums - 1) > 1e-3)
    else:
        return
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SetFileError(
            f"label_kind is {kind!r}, but row {row} of labels runs from {labels[row].min():.4g} "
            f"to {labels[row].max():.4g} and sums to {sums[row]:.4g}",
            fix="name the kind that the labels have: "
            "'centred' for one-hot minus 1/K, 'logits' for free values",
        )


def _check_temperature(value: Any) -> None:
    if value is not None and _numbers("log_temperature", value, "float32").shape != ():
        raise SetFileError(f"log_temperature has shape {value.shape}, expected a scalar",
                           fix="store the logarithm of the factor on the scores")


def _check_rate(value: Any) -> None:
    if value is None:
        return
    rate = _numbers("learning_rate", value, "float32")
    if rate.ndim > 1 or rate.size == 0 or rate.min() < 0:
        lowest = f" and lowest value {rate.min()}" if rate.size else ""
        raise SetFileError(
            f"learning_rate has shape {rate.shape}{lowest}, expected one rate or a list [T] of "
            "rates, none negative",
            fix="store the rate that is used, for example exp of a logarithm that was learned",
        )


def _check_weights(value: Any, count: int) -> None:
    if value is None:
        return
    weights = _numbers("weights", value, "float32")
    if weights.shape != (count,) or weights.min() < 0 or not weights.max() > 0:
        values = f" from {weights.min():.4g} to {weights.max():.4g}" if weights.size else ""
        raise SetFileError(
            f"weights have shape {weights.shape}{values}, expected ({count},): one for each image, "
            "none negative, not all 0",
            fix="give each image how much it counts, or pass weights=None",
        )


def read_spec(value: Any) -> DataSpec:
    """Builds the `DataSpec` from its JSON form.

    Args:
      value: {"name", "shape", "num_classes", "class_names"}.

    Raises:
      SetFileError: naming the field that is missing or of the wrong type.
    """
    value = value if isinstance(value, dict) else {}
    shape, names = value.get("shape"), value.get("class_names")
    classes = value.get("num_classes")
    good = {
        "name": isinstance(value.get("name"), str),
        "shape": isinstance(shape, list) and len(shape) == 3 and all(map(_positive, shape)),
        "num_classes": _positive(classes),
        "class_names": isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and len(names) == classes,
    }
    for field, fine in good.items():
        if not fine:
            raise SetFileError(
                f"card field 'spec.{field}' is {str(value.get(field))[:60]!r}, expected "
                "a name, a shape of three sizes, K, and K class names",
                fix="write the set again with dd_jax.store.save",
            )
    return DataSpec(value["name"], tuple(shape), classes, tuple(names))


def _check_normaliser(normaliser: Normaliser, spec: DataSpec) -> None:
    """Checks shapes and values, so that a wrong one fails here and not inside a jitted step."""
    features = int(np.prod(spec.shape, dtype=object))
    expected = {
        "mean": (spec.shape[-1],),
        "std": (spec.shape[-1],),
        "pixel_mean": (features,),
        "whiten": (features, features),
        "unwhiten": (features, features),
    }
    for name, shape in expected.items():
        array = getattr(normaliser, name)
        if array is None and name not in ("mean", "std"):
            continue
        array = np.asarray(array)
        if array.shape != shape or not np.isfinite(array).all():
            raise SetFileError(
                f"normaliser.{name} has shape {array.shape}, expected {shape} of finite values "
                f"for images of shape {tuple(spec.shape)}",
                fix=_FITTED,
            )
    std = np.asarray(normaliser.std)
    largest = max(float(np.abs(array).max()) for array in (std, np.asarray(normaliser.mean)))
    if std.min() < LEAST_STD or largest > MOST_STD:
        raise SetFileError(
            f"normaliser.std has the value {std.min()}, and with the mean it goes up to {largest}: "
            f"expected deviations above 0, in single precision {LEAST_STD:g} to {MOST_STD:g}",
            fix=_FITTED,
        )
    if (normaliser.whiten is None) != (normaliser.unwhiten is None) or not _inverse(
            normaliser.whiten, normaliser.unwhiten):
        raise SetFileError("normaliser.unwhiten is not the inverse of normaliser.whiten",
                           fix=_FITTED)


def _inverse(whiten: Any, unwhiten: Any) -> bool:
    """Whether two matrices [d, d] undo each other, up to the rounding of their entries.

    Tried on a few vectors, which takes d^2 operations where their product takes d^3:
    |v W U - v| <= (1e-3 + 3e-7 |W|_F |U|_F) |v|, the second part a bound of the rounding.
    """
    if whiten is None:
        return True
    whiten, unwhiten = np.asarray(whiten), np.asarray(unwhiten)
    vectors = np.random.default_rng(0).normal(size=(4, len(whiten)))
    found = _times(_times(vectors, whiten), unwhiten)
    sizes = [np.sqrt(np.einsum("ij,ij->", m, m, dtype=np.float64)) for m in (whiten, unwhiten)]
    most = 1e-3 + 3e-7 * float(np.prod(sizes))
    return bool(np.linalg.norm(found - vectors) <= most * np.linalg.norm(vectors))


def _times(vectors: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """vectors @ matrix in float64, a copy of which would take much memory, in blocks of rows."""
    return sum(vectors[:, i : i + 256] @ matrix[i : i + 256].astype(np.float64)
               for i in range(0, len(matrix), 256))


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _numbers(name: str, value: Any, *dtypes: str) -> np.ndarray:
    """The array of a field, of one of these dtypes and finite."""
    array = np.asarray(value)
    if array.dtype.name not in dtypes:
        raise SetFileError(
            f"{name} has dtype {array.dtype}, expected {' or '.join(dtypes)}",
            fix=f"cast {name} to {dtypes[0]}"
            + (", or say which label_kind they are" if name == "labels" else "")
        )
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise SetFileError(
            f"{name} has {int((~finite).sum())} values that are not finite, the first at {first}",
            fix="use a set from before the run diverged",
        )
    return array
