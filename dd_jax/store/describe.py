"""A distilled set in words, for a person who was handed the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.data.normalise import to_tensors
from dd_jax.errors import printable
from dd_jax.store.record import DistilledSet, LabelStore, array_bytes

_WIDTH = 14
_CELL = 88


def summary(distilled: DistilledSet) -> str:
    """Describes a set in a few lines of text: what it is, how it was made, how to use it.

    Args:
      distilled: the set.

    Returns:
      Lines of "name  value"; text from the file is shortened and its control characters
      escaped, because a file may come from anyone and the lines go to a terminal.

    Example:
      >>> from dd_jax.data.normalise import identity
      >>> from dd_jax.types import DataSpec, SyntheticSet
      >>> images, labels = np.zeros((2, 4, 4, 1), np.float32), np.eye(2, dtype=np.float32)
      >>> made = DistilledSet(SyntheticSet(images, labels), identity((4, 4, 1)), "one_hot",
      ...                     DataSpec("toy", (4, 4, 1), 2, ("a", "b")), {"method": "none"})
      >>> print(summary(made).splitlines()[0])
      method        none
    """
    synthetic, spec = distilled.synthetic, distilled.spec
    images, labels = np.asarray(synthetic.images), np.asarray(synthetic.labels)
    scaled = "" if distilled.label_scale == 1 else f" times {distilled.label_scale:g}"
    kind = distilled.label_kind + scaled
    rows = [
        ("method", distilled.recipe.get("method", "unknown")),
        ("data", f"{spec.name}, {spec.num_classes} classes, images {_shape(spec.shape)}"),
        ("images", f"{_shape(images.shape)} {images.dtype}, {_range(images)}"),
        ("per class", _per_class(distilled)),
        ("labels", f"{_shape(labels.shape)} {labels.dtype}, {kind}, {_range(labels)}"),
        *_beside(distilled.label_store),
        *([] if synthetic.weights is None else [("weights", _rate(synthetic.weights))]),
        ("inner rate", _rate(synthetic.learning_rate)),
        ("log temp.", _rate(synthetic.log_temperature)),
        ("normaliser", _pairs(to_tensors(distilled.normaliser)[1])),
        ("bytes", f"{array_bytes(synthetic)} ({_parts(distilled)}), "
                  f"stored {distilled.stored_bytes}"),
        ("classes", ", ".join(spec.class_names)),
        ("data hash", distilled.data_fingerprint or "not recorded"),
        ("versions", _pairs(distilled.versions)),
    ]
    lines = [f"{name:<{_WIDTH}}{_cell(value)}" for name, value in rows]
    for title, settings in (("recipe", distilled.recipe), ("evaluation", distilled.evaluation)):
        if settings:
            lines.append(title)
            lines += [f"  {_cell(k, 40)} = {_cell(v)}" for k, v in _flat(settings)]
    if distilled.citation:
        lines.append("citation")
        lines += [f"  {_cell(line, 200)}" for line in distilled.citation.splitlines()[:40]]
    return "\n".join(lines)


def _per_class(distilled: DistilledSet) -> str:
    """Images per class, by the largest label: "10", or how uneven they are."""
    if distilled.hard_labels is None:
        return "unlabelled"
    counts = np.bincount(distilled.hard_labels, minlength=distilled.spec.num_classes)
    if counts.min() == counts.max():
        return str(counts[0])
    soft = "" if distilled.label_kind == "classes" else " (by the largest label)"
    return f"{counts.min()} to {counts.max()}{soft}"


def _beside(store: LabelStore | None) -> list[tuple[str, str]]:
    if store is None:
        return []
    return [("label store", f"{store.name}: {_shape(store.shape)} {store.dtype}, {store.kind}, "
                            f"{store.bytes} bytes")]


def _parts(distilled: DistilledSet) -> str:
    """What the files hold, "images 192, labels 32", parts that cost nothing left out."""
    cost = distilled.cost_bytes._asdict()
    return ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in cost.items() if n)


def _rate(rate: Any | None) -> str:
    if rate is None:
        return "not learned"
    rate = np.asarray(rate)
    return f"{float(rate):.6g}" if rate.ndim == 0 else f"{_shape(rate.shape)}, {_range(rate)}"


def _range(array: np.ndarray) -> str:
    return f"min {array.min():.4g}, mean {array.mean():.4g}, max {array.max():.4g}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {values[name]}" for name in sorted(values)) or "not recorded"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as dotted names, in the order of the names."""
    rows: list[tuple[str, Any]] = []
    for name in sorted(values):
        value = values[name]
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def _cell(value: Any, width: int = _CELL) -> str:
    return printable(value, most=width)
