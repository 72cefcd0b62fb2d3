"""Loading a data set by name or by path."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Optional

from dd_jax.data.cifar import CIFAR10_FILES, read_cifar10, read_cifar100
from dd_jax.data.embedded import CLASS_NAMES, NAME, load_embedded
from dd_jax.data.files import PathLike
from dd_jax.data.folder import from_folder
from dd_jax.data.idx import read_idx_pair
from dd_jax.data.npz import from_npz
from dd_jax.data.split import split_from_arrays
from dd_jax.data.tfds import from_tfds
from dd_jax.errors import ConfigError, DataError, MissingPackageError, unknown
from dd_jax.types import Split

ENVIRONMENT = "DD_JAX_DATA"
_TRAIN, _TEST = ("train",), ("t10k", "test")


@dataclasses.dataclass(frozen=True)
class Known:
    """Where a well-known set is looked for.

    Attributes:
      name: of the set, of its folder under DD_JAX_DATA and in tensorflow-datasets.
      folders: of system packages.
      package: the system package to name in an error.
      class_names: shown names, or None to take them from the files.
    """

    name: str
    folders: tuple[str, ...] = ()
    package: str = ""
    class_names: Optional[tuple[str, ...]] = None


KNOWN = (
    Known(
        "fashion_mnist",
        folders=("/usr/share/datasets/fashion-mnist",),
        package="the Debian package dataset-fashion-mnist",
        class_names=CLASS_NAMES,
    ),
    Known("mnist"),
    Known("cifar10"),
    Known("cifar100"),
)


def load(source: PathLike = "embedded", *, path: Optional[PathLike] = None) -> Split:
    """Loads a training and a test set by name or by path.

    Args:
      source: "embedded" (10,000 images of Fashion-MNIST inside the package); a well-known name,
        "fashion_mnist", "mnist", "cifar10" or "cifar100"; "tfds:NAME"; or a path: a folder of idx
        files, of CIFAR binary files or of class folders, or an .npz file, told apart by what they
        contain.
      path: where a well-known set is. By default the folder in the environment variable
        DD_JAX_DATA, the system's package folder and tensorflow-datasets are tried in this order;
        nothing is ever downloaded. For "tfds:NAME" the folder of prepared sets.

    Returns:
      `Split` of `RealData` on the device.

    Raises:
      ConfigError: unknown name.
      DataError: not found (lists what was tried), or damaged.

    Example:
      >>> load().train.spec.shape
      (28, 28, 1)
    """
    text = os.fspath(source)
    if text.startswith("tfds:"):
        return from_tfds(text.removeprefix("tfds:"), data_dir=path)
    if text in SOURCES:
        return SOURCES[text](path)
    if os.path.exists(text) or os.sep in text or isinstance(source, pathlib.Path):
        return from_path(text)
    raise unknown("data source", text, [*SOURCES, "tfds:NAME"])


def load_named(name: str) -> Split:
    """Loads a well-known set by the name that a file gives, which is never taken for a path.

    Raises:
      ConfigError: there is no such set.
      DataError: not found (lists what was tried), or damaged.

    Example:
      >>> load_named("/etc")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: the data is called "/etc", which is no well-known set; ...
    """
    if name not in SOURCES:
        raise ConfigError(f"the data is called {str(name)[:80]!r}, which is no well-known set",
                          fix="say where it is, by --data or data=")
    return SOURCES[name](None)


def from_path(path: PathLike, *, name: Optional[str] = None, class_names=None) -> Split:
    """Reads a folder or file of any known layout, recognised by its contents.

    Args:
      path: folder of idx files, of CIFAR binary files or of class folders, or an .npz file.
      name: of the set, by default the path's last part.
      class_names: for idx files, which do not hold names.

    Returns:
      `Split`.

    Raises:
      DataError: nothing there, nothing recognised, or damaged.

    Example:
      >>> from_path("missing")
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: missing: no such file or folder; check the path
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder", fix="check the path")
    name = name or (path.resolve().name if path.is_dir() else path.stem)
    for recognise, read in LAYOUTS:
        if recognise(path):
            return read(path, name, class_names)
    there = sorted(entry.name for entry in path.iterdir())[:8] if path.is_dir() else ["one file"]
    raise DataError(
        f"{path}: not a data set in a known layout, found {', '.join(there) or 'nothing'}",
        fix="expected idx files (train-images..., t10k-images...), CIFAR .bin files, class "
        "folders of images or an .npz file; anything else goes through from_arrays",
    )


def _idx_file(folder: pathlib.Path, parts: tuple[str, ...], what: str) -> Optional[pathlib.Path]:
    for part in parts:
        found = sorted(folder.glob(f"{part}-{what}*"))
        if found:
            return found[0]
    return None


def _has_idx(path: pathlib.Path) -> bool:
    return path.is_dir() and _idx_file(path, _TRAIN, "images") is not None


def _read_idx_folder(path: pathlib.Path, name: str, class_names) -> Split:
    pairs = []
    for parts in (_TRAIN, _TEST):
        files = [_idx_file(path, parts, what) for what in ("images", "labels")]
        if None in files:
            missing = "images" if files[0] is None else "labels"
            raise DataError(
                f"{path}: no file {' or '.join(f'{p}-{missing}*' for p in parts)}",
                fix="an idx set has four files: images and labels, for training and for test",
            )
        pairs.append(read_idx_pair(*files))
    return split_from_arrays(pairs[0], pairs[1], name=name, class_names=class_names)


def _is_npz(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return stream.read(2) == b"PK" or path.suffix == ".npz"


def _has_class_folders(path: pathlib.Path) -> bool:
    return path.is_dir() and any(entry.is_dir() for entry in path.iterdir())


# (does this path have the layout?, reader of it), tried in order; class folders come last because
# any folder with a folder in it looks like them.
LAYOUTS: tuple[tuple[Callable, Callable], ...] = (
    (_is_npz, lambda path, name, _: from_npz(path, name=name)),
    (_has_idx, _read_idx_folder),
    (
        lambda path: any((path / file).is_file() for file in CIFAR10_FILES),
        lambda path, name, _: read_cifar10(path, name=name),
    ),
    (
        lambda path: (path / "train.bin").is_file(),
        lambda path, name, _: read_cifar100(path, name=name),
    ),
    (_has_class_folders, lambda path, name, _: from_folder(path, name=name)),
)


def _find(known: Known, path: Optional[PathLike]) -> Split:
    """Tries the places of a well-known set in order; damage is reported, not skipped."""
    if path is not None:
        return from_path(path, name=known.name, class_names=known.class_names)
    tried = []
    base = os.environ.get(ENVIRONMENT)
    folders = list(known.folders)
    if base:
        folders = [os.path.join(base, known.name), base, *folders]
    else:
        tried.append(f"{ENVIRONMENT} (not set)")
    for folder in folders:
        place = pathlib.Path(folder)
        if any(recognise(place) for recognise, _ in LAYOUTS[:-1]):
            return from_path(place, name=known.name, class_names=known.class_names)
        tried.append(f"{folder} ({'no data files' if place.exists() else 'missing'})")
    try:
        return from_tfds(known.name)
    except (DataError, MissingPackageError) as error:
        tried.append(f"tensorflow-datasets ({error.message})")
    install = f"install {known.package}, or " if known.package else ""
    raise DataError(
        f"{known.name} was not found; tried " + "; ".join(tried),
        fix=f"{install}pass path= or set {ENVIRONMENT} to the folder with its files, or use "
        "load('embedded')",
    )


SOURCES: dict[str, Callable[[Optional[PathLike]], Split]] = {
    "embedded": lambda path: load_embedded(),
    NAME: lambda path: load_embedded(),  # what it calls itself in files
    **{known.name: (lambda path, known=known: _find(known, path)) for known in KNOWN},
}
