"""An adapter for data sets prepared by tensorflow-datasets, without TensorFlow where possible."""

from __future__ import annotations

import re
from typing import Any, Optional

import numpy as np

from dd_jax.data.files import PathLike
from dd_jax.data.split import split_from_arrays
from dd_jax.errors import DataError, MissingPackageError, nearest
from dd_jax.types import Split

# set, set/config, set:1.0.0 or set/config:1.0.0; anything else may ask a remote registry.
_LOCAL_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d.*]+)?")


def from_tfds(
    name: str,
    *,
    data_dir: Optional[PathLike] = None,
    split: tuple[str, str] = ("train", "test"),
    download: bool = False,
    image_key: Optional[str] = None,
    label_key: Optional[str] = None,
    device: bool = True,
) -> Split:
    """Loads a set that tensorflow-datasets has prepared on this machine.

    Sets prepared in a random-access format (`file_format="array_record"`) are read without
    TensorFlow; others need it.

    Args:
      name: as for `tfds.builder`, for example "cifar10" or "cifar10:3.0.2".
      data_dir: where prepared sets are, by default that of tensorflow-datasets.
      split: names of the training and the test split.
      download: True lets tensorflow-datasets download and prepare a missing set.
      image_key: feature with the image, by default the supervised input.
      label_key: feature with the label, by default the supervised target.
      device: as for `from_arrays`.

    Returns:
      `Split`.

    Raises:
      MissingPackageError: tensorflow-datasets (or TensorFlow, where needed) does not import.
      DataError: a set, split or key that is not there, images of mixed size.

    Example:
      >>> from_tfds("mnist", data_dir="nowhere")  # doctest: +SKIP
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: 'mnist' is not prepared ...
    """
    tfds = _import()
    builder = _builder(tfds, name, data_dir, download)
    image_key, label_key = _keys(builder.info, name, image_key, label_key)
    parts = []
    for part in split:
        if part not in builder.info.splits:
            raise DataError(
                f"{name!r} has no split {part!r}",
                fix="pass split=(train, test) out of " + ", ".join(sorted(builder.info.splits)),
            )
        parts.append(_arrays(tfds, builder, part, image_key, label_key))
    label = builder.info.features[label_key]
    names = getattr(label, "names", None)
    short = name.split(":")[0].replace("/", "_")
    return split_from_arrays(
        parts[0], parts[1], name=short, class_names=names or None, device=device
    )


def _import() -> Any:
    try:
        import tensorflow_datasets
    except Exception as error:  # a broken install fails in other ways than ImportError
        raise MissingPackageError(
            f"tensorflow-datasets does not import ({type(error).__name__}: {error})",
            fix="install it with: pip install 'dd_jax[tfds]'; the other readers do not need it",
        ) from None
    return tensorflow_datasets


def _builder(tfds: Any, name: str, data_dir: Optional[PathLike], download: bool) -> Any:
    if not download and not _LOCAL_NAME.fullmatch(name):
        raise DataError(
            f"{name!r} is not the name of a local set",
            fix="pass name, name/config or name:version, or allow download=True",
        )
    options = {} if data_dir is None else {"data_dir": str(data_dir)}
    try:
        builder = tfds.builder(name, **options)
        prepared = (builder.data_path / "dataset_info.json").exists()
        if not prepared and download:
            builder = tfds.builder(name, file_format="array_record", **options)
            builder.download_and_prepare()
            prepared = True
    # Unknown names, broken builders and failed downloads come as many unrelated exceptions.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        known = [line.strip("\t -") for line in lines if line.startswith("\t-")]
        raise DataError(
            f"tensorflow-datasets cannot open {name!r} ({type(error).__name__}: {lines[0]})",
            fix=nearest(name, known) if known and len(nearest(name, known)) < 200
            else "check the name and data_dir",
        ) from None  # fmt: skip
    if not prepared:
        raise DataError(
            f"{name!r} is not prepared in {builder.data_path}",
            fix="prepare it with tensorflow-datasets (file_format='array_record'), or pass "
            "download=True",
        )
    return builder


def _keys(info: Any, name: str, image_key: Optional[str], label_key: Optional[str]):
    pair = info.supervised_keys
    pair = pair if pair and len(pair) == 2 else ("image", "label")
    keys = (image_key or pair[0], label_key or pair[1])
    for key in keys:
        if key not in info.features:
            raise DataError(
                f"{name!r} has no feature {key!r}",
                fix="pass image_key and label_key out of " + ", ".join(sorted(info.features)),
            )
    return keys


def _arrays(tfds: Any, builder: Any, part: str, image_key: str, label_key: str):
    try:
        source = builder.as_data_source(split=part)
        rows = (source[i] for i in range(len(source)))
        return _stack(rows, f"{builder.name} {part}", image_key, label_key)
    except (NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
    try:
        import tensorflow  # noqa: F401  a format without random access is read by TensorFlow
    except Exception:
        raise MissingPackageError(
            f"{builder.name!r} is prepared in a format that needs TensorFlow ({reason})",
            fix="prepare it with file_format='array_record', or pip install 'dd_jax[tfds]' "
            "and tensorflow",
        ) from None
    rows = tfds.as_numpy(builder.as_dataset(split=part, shuffle_files=False))
    return _stack(rows, f"{builder.name} {part}", image_key, label_key)


def _stack(rows: Any, where: str, image_key: str, label_key: str):
    images, labels = [], []
    for row in rows:
        image = np.asarray(row[image_key])
        if images and image.shape != images[0].shape:
            raise DataError(
                f"{where}: images of mixed size, {images[0].shape} and {image.shape}",
                fix="resize them first and use from_arrays",
            )
        images.append(image)
        labels.append(int(row[label_key]))
    if not images:
        raise DataError(f"{where}: this split is empty", fix="choose another split")
    return np.stack(images), np.asarray(labels, np.int32)
