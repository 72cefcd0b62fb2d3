"""What a distilled set must be, whether it comes from a run or from a file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dd_jax.errors import SetFileError, nearest
from dd_jax.types import DataSpec, SyntheticSet

LABEL_KINDS = ("one_hot", "centred", "probabilities", "logits", "representations")


def check_synthetic(
    synthetic: SyntheticSet, spec: DataSpec, *, label_kind: str = "one_hot"
) -> None:
    """Checks the arrays of a distilled set against the description of its data.

    Args:
      synthetic: images [M, H, W, C], labels [M, K], learning_rate [] or [T] or None.
      spec: what (H, W, C) and K must be.
      label_kind: "representations" may have any number of columns.

    Raises:
      SetFileError: naming the array, what it is and what was expected.
    """
    images = _float32("images", synthetic.images)
    labels = _float32("labels", synthetic.labels)
    if images.ndim != 4 or tuple(images.shape[1:]) != tuple(spec.shape) or not len(images):
        expected = ", ".join(str(n) for n in spec.shape)
        raise SetFileError(
            f"images have shape {images.shape}, the spec's shape asks for [M, {expected}] with "
            "M of at least 1",
            fix="give the spec of the data that the set was distilled from",
        )
    free = label_kind == "representations" and labels.ndim == 2 and labels.shape[1] > 0
    if labels.shape != (len(images), labels.shape[-1] if free else spec.num_classes):
        raise SetFileError(
            f"labels have shape {labels.shape}, expected {(len(images), spec.num_classes)}: one "
            f"row for each of {len(images)} images, one column for each of "
            f"{spec.num_classes} classes (num_classes)",
            fix="keep images and labels of the same selection, and the spec of their data",
        )
    if synthetic.log_temperature is not None:
        temperature = _float32("log_temperature", synthetic.log_temperature)
        if temperature.shape != ():
            raise SetFileError(f"log_temperature has shape {temperature.shape}, expected a scalar",
                               fix="store the logarithm of the factor on the scores")
    if synthetic.learning_rate is None:
        return
    rate = _float32("learning_rate", synthetic.learning_rate)
    if rate.ndim > 1 or rate.size == 0 or rate.min() < 0:
        lowest = f" and lowest value {rate.min()}" if rate.size else ""
        raise SetFileError(
            f"learning_rate has shape {rate.shape}{lowest}, expected one rate or a list [T] of "
            "rates, none negative",
            fix="store the rate that is used, for example exp of a logarithm that was learned",
        )


def check_label_kind(kind: Any, scale: Any, labels: np.ndarray) -> None:
    """Checks that the labels are what their kind says, as far as values can show it.

    Args:
      kind: one of `LABEL_KINDS`.
      scale: what centred labels were multiplied by; above 0.
      labels: [M, K] float32.

    Raises:
      SetFileError: an unknown kind, a useless scale, or values that the kind forbids.
    """
    if kind not in LABEL_KINDS:
        raise SetFileError(
            f"label_kind is {kind!r}, which is unknown", fix=nearest(str(kind), LABEL_KINDS)
        )
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not number or not 0 < scale < 1e30:
        raise SetFileError(
            f"label_scale is {scale!r}, expected a finite number above 0",
            fix="pass label_scale=1.0 unless the labels were scaled",
        )
    labels = np.asarray(labels)
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


def plain(value: Any, where: str) -> Any:
    """Turns settings into values that JSON can hold, or says which one cannot be.

    Tuples become lists and NumPy scalars become numbers, so what `load` gives back compares
    equal to a set that was itself loaded.

    Args:
      value: dicts with text keys, lists, tuples, text, numbers, booleans and None.
      where: how to call the value in an error, for example "recipe".

    Raises:
      SetFileError: naming the path of the offending value.

    Example:
      >>> plain({"betas": (0.9, 0.99)}, "recipe")
      {'betas': [0.9, 0.99]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise SetFileError(
                    f"{where} has the key {key!r} of type {type(key).__name__}, expected text",
                    fix="use text for keys",
                )
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise SetFileError(f"{where} is {value}, which JSON cannot hold", fix="use None or text")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise SetFileError(
        f"{where} is a {type(value).__name__}, which JSON cannot hold",
        fix="store its name or its plain values",
    )


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _float32(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != np.float32:
        raise SetFileError(
            f"{name} has dtype {array.dtype}, expected float32", fix=f"cast {name} to float32"
        )
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise SetFileError(
            f"{name} has {int((~finite).sum())} values that are not finite, the first at {first}",
            fix="use a set from before the run diverged",
        )
    return array
