"""Labels of each epoch beside a set: one safetensors file of [E, M, K], read epoch by epoch.

Methods that keep a teacher's soft labels for every view that a training sees need more room for
them than for their images. The set's file names the labels' file and its hash; that file names the
images it labels by theirs, so a store that lies beside another set is found out.
"""

from __future__ import annotations

import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.errors import SetFileError, require_whole, unknown
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.container import content_hash
from dd_jax.store.record import DistilledSet, LabelStore
from dd_jax.store.rows import RowFile, RowFormat, open_rows, read_row, write_rows

DTYPES = ("float16", "float32")
KINDS = ("probabilities", "logits")
_ENDING = ".labels.safetensors"
_AGAIN = "write it again with dd_jax.store.write_label_store"
# Letters of any script, but nothing that a path or a terminal reads in its own way.
_NAME = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,200}" + re.escape(_ENDING))


def _refused(path: pathlib.Path, problem: str) -> SetFileError:
    return SetFileError(f"its label store {path.name} {problem}", fix=f"copy it again, or {_AGAIN}")


_FORMAT = RowFormat("dd_jax.labels", version=1, tensor="targets", axes=3, dtypes=DTYPES,
                    what="a label store", error=SetFileError, refused=_refused)


def label_store_path(path: PathLike) -> pathlib.Path:
    """Where the label store of a set's file lies.

    Example:
      >>> label_store_path("sets/a.safetensors").name
      'a.labels.safetensors'
    """
    path = pathlib.Path(path)
    stem = path.stem if path.suffix == ".safetensors" else path.name
    return path.with_name(stem + _ENDING)


def write_label_store(
    path: PathLike,
    targets: np.ndarray,
    distilled: DistilledSet,
    *,
    kind: str = "probabilities",
    dtype: str = "float16",
) -> LabelStore:
    """Writes labels of every epoch beside the file that the set will have.

    Args:
      path: of the set's file, "NAME.safetensors"; the labels go to "NAME.labels.safetensors".
      targets: [E, M, K] float, labels of the set's images in epoch e; after the last epoch they
        begin anew. Read epoch by epoch, so it may be a memory map.
      distilled: the set; pass `dataclasses.replace(distilled, label_store=...)` to `save`.
      kind: "probabilities" or "logits".
      dtype: "float16" or "float32", of the file.

    Returns:
      The record for `DistilledSet.label_store`.

    Raises:
      ConfigError: an unknown kind or dtype.
      SetFileError: labels of another shape, that are not finite or not of their kind, or a file
        that cannot be written.

    Example:
      >>> import dataclasses, pathlib, tempfile
      >>> from dd_jax import store
      >>> from dd_jax.data.normalise import identity
      >>> from dd_jax.types import DataSpec, SyntheticSet
      >>> images, labels = np.zeros((2, 4, 4, 1), np.float32), np.array([0, 1], np.int32)
      >>> made = DistilledSet(SyntheticSet(images, labels), identity((4, 4, 1)), "classes",
      ...                     DataSpec("toy", (4, 4, 1), 2, ("a", "b")))
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "toy.safetensors"
      >>> beside = write_label_store(path, np.full((3, 2, 2), 0.5), made)
      >>> path = store.save(path, dataclasses.replace(made, label_store=beside))
      >>> read_targets(store.load(path).label_store, 4).tolist()
      [[0.5, 0.5], [0.5, 0.5]]
    """
    for name, value, known in (("kind of stored labels", kind, KINDS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise unknown(name, value, known)
    targets, wanted = np.asarray(targets), _expected(distilled)
    floating = np.issubdtype(targets.dtype, np.floating) or targets.dtype.name == "bfloat16"
    if targets.ndim != 3 or targets.shape[1:] != wanted or not len(targets) or not floating:
        raise SetFileError(
            f"targets have shape {targets.shape} and dtype {targets.dtype}, expected floats "
            f"[E, {wanted[0]}, {wanted[1]}]", fix="give a label of each image for each epoch")
    stored = np.float16 if dtype == "float16" else np.float32
    for epoch, labels in enumerate(targets):
        with np.errstate(over="ignore"):
            labels = labels.astype(stored).astype(np.float32)
        _check_values(labels, kind, f"targets of epoch {epoch}")
    path = label_store_path(path)
    _check_name(path.name)
    write_rows(path, targets, _FORMAT, dtype=dtype,
               description={"kind": kind, "images_sha256": images_hash(distilled)})
    return LabelStore(path.name, open_rows(path, _FORMAT).sha256, dtype, targets.shape, kind, path)


def read_targets(store: LabelStore, epoch: int) -> np.ndarray:
    """Reads the labels of one epoch, counted modulo the epochs that are stored.

    Args:
      store: of a set that was loaded or whose labels were just written.
      epoch: from 0 on.

    Returns:
      [M, K] float32.

    Raises:
      ConfigError: not an epoch.
      SetFileError: the file is gone, changed or damaged.
    """
    require_whole("epoch", epoch, least=0, example=0)
    if store.path is None:
        raise SetFileError(f"nobody knows where the label store {store.name} is",
                           fix="load the set whose it is")
    return read_row(_opened(store, store.path), int(epoch) % store.shape[0])


def card_of_store(store: LabelStore) -> dict[str, Any]:
    """What a set's card says of its label store, JSON-able."""
    return {"name": store.name, "sha256": store.sha256, "dtype": store.dtype,
            "shape": list(store.shape), "kind": store.kind, "bytes": store.bytes}


def read_record(value: Any) -> LabelStore:
    """The record of a label store from what a set's card says of it.

    Raises:
      SetFileError: naming the field that is missing or cannot be.
    """
    value = value if isinstance(value, Mapping) else {}
    shape = value.get("shape")
    good = {
        "name": isinstance(value.get("name"), str),
        "sha256": isinstance(value.get("sha256"), str),
        "dtype": value.get("dtype") in DTYPES,
        "kind": value.get("kind") in KINDS,
        "shape": isinstance(shape, list) and len(shape) == 3
        and all(type(side) is int and 0 < side < 2**40 for side in shape),
    }
    for field, fine in good.items():
        if not fine:
            raise _field_error(field, value.get(field))
    _check_name(value["name"])
    store = LabelStore(value["name"], value["sha256"], value["dtype"], tuple(shape), value["kind"])
    if value.get("bytes") != store.bytes:
        raise _field_error("bytes", value.get("bytes"))
    return store


def check_record(distilled: DistilledSet) -> None:
    """Checks that a set's record of a label store could be that of its images; opens no file.

    Raises:
      SetFileError: naming what is wrong.
    """
    store = distilled.label_store
    if store is None:
        return
    if not isinstance(store, LabelStore):
        raise SetFileError(f"label_store is a {type(store).__name__}, expected a LabelStore",
                           fix=_AGAIN)
    read_record(card_of_store(store) if store.dtype in DTYPES else {})
    if tuple(store.shape[1:]) != _expected(distilled):
        raise SetFileError(
            f"its label store has labels of shape {tuple(store.shape[1:])}, the set has "
            f"{_expected(distilled)} (images, classes)", fix=_AGAIN)


def found_beside(distilled: DistilledSet, folder: pathlib.Path, *, max_bytes: int) -> LabelStore:
    """Finds a set's label store in the folder of its file and reads all of it once, epoch by epoch.

    Args:
      distilled: a set with a label store.
      folder: of its file.
      max_bytes: refuse longer stores.

    Returns:
      The record, with the path.

    Raises:
      SetFileError: the file is missing, damaged, too long or of another set.
    """
    store = distilled.label_store
    path = folder / store.name
    if not path.is_file():
        raise SetFileError(f"its label store {store.name} is not beside it",
                           fix=f"copy it into the folder of the set, or {_AGAIN}")
    if store.bytes > max_bytes:
        raise SetFileError(f"its label store has {store.bytes} bytes of labels, more than the cap "
                           f"of {max_bytes}", fix="pass a larger max_bytes if you trust the file")
    file = _opened(store, path)
    if file.description.get("images_sha256") != images_hash(distilled):
        raise _of_another(path, "it labels other images")
    for epoch in range(store.shape[0]):
        _check_values(read_row(file, epoch), store.kind,
                      f"its label store {store.name}, epoch {epoch},")
    return LabelStore(store.name, store.sha256, store.dtype, store.shape, store.kind, path)


def copy_label_store(store: LabelStore, to: pathlib.Path) -> pathlib.Path:
    """Copies a label store to the file `to`; returns that.

    Raises:
      SetFileError: it is gone or changed, or cannot be written.
    """
    if store.path is None or not store.path.is_file():
        raise SetFileError(f"its label store {store.name} is not there to be copied",
                           fix="load the set where its label store is beside it")
    _opened(store, store.path)

    def write(file):
        with open(store.path, "rb") as source:
            shutil.copyfileobj(source, file, 2**20)

    return write_atomically(to, write)


def _opened(store: LabelStore, path: pathlib.Path) -> RowFile:
    file = open_rows(path, _FORMAT)
    if file.sha256 != store.sha256:
        raise _of_another(path, f"its SHA-256 is {file.sha256[:12]}..., the set says "
                          f"{store.sha256[:12]}...")
    said = file.shape, file.dtype, file.description.get("kind")
    if said != (tuple(store.shape), store.dtype, store.kind):
        raise _of_another(path, f"it holds {said}")
    return file


def _of_another(path: pathlib.Path, why: str) -> SetFileError:
    return SetFileError(f"its label store {path.name} is that of another set: {why}",
                        fix=f"put the set's own beside it, or {_AGAIN}")


def _expected(distilled: DistilledSet) -> tuple[int, int]:
    return len(distilled.synthetic.images), distilled.spec.num_classes


def images_hash(distilled: DistilledSet) -> str:
    """SHA-256 of the images, or of the parameters that they are decoded from."""
    if distilled.stored is None:
        return content_hash({"images": np.asarray(distilled.synthetic.images)})
    return content_hash({name: np.asarray(a) for name, a in distilled.stored.params.items()})


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise SetFileError(f"its label store is called {name[:80]!r}, expected the name of a file "
                           f"in the same folder that ends in {_ENDING!r}", fix=_AGAIN)


def _check_values(labels: np.ndarray, kind: str, where: str) -> None:
    if not np.isfinite(labels).all():
        raise SetFileError(f"{where} has values that are not finite",
                           fix="store finite labels, large ones in float32")
    # Rounding to half precision moves a sum by less.
    if kind == "probabilities" and (labels.min() < 0 or np.abs(labels.sum(-1) - 1).max() > 2e-3):
        raise SetFileError(f"{where} has rows that are no probabilities",
                           fix="apply a softmax, or say kind='logits'")


def _field_error(field: str, value: Any) -> SetFileError:
    return SetFileError(f"card field 'label_store.{field}' is {str(value)[:60]!r}, which a label "
                        "store cannot have", fix=_AGAIN)
