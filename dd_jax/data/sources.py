"""Loading a data set by name or by path."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Optional

from dd_jax.data.cifar import CIFAR10_FILES, read_cifar10, read_cifar100
from dd_jax.data.embedded import CLASS_NAMES, NAME, load_embedded
from dd_jax.data.files import PathLike
from dd_jax.data.folder import Size, from_folder
from dd_jax.data.idx import read_idx_pair
from dd_jax.data.npz import from_npz
from dd_jax.data.places import stands_at, unusable
from dd_jax.data.split import split_from_arrays
from dd_jax.data.tfds import from_tfds
from dd_jax.errors import ConfigError, DataError, MissingPackageError, require_kind, unknown
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


def load(
    source: PathLike = "embedded",
    *,
    path: Optional[PathLike] = None,
    size: Size = None,
    channels: Optional[int] = None,
    test_fraction: Optional[float] = None,
    class_names: Optional[Sequence[str]] = None,
) -> Split:
    """Loads a training and a test set by name or by path.

    Args:
      source: "embedded" (10,000 images of Fashion-MNIST inside the package); a well-known name,
        "fashion_mnist", "mnist", "cifar10" or "cifar100"; "tfds:NAME"; or a path: a folder of idx
        files, of CIFAR binary files or of class folders, or an .npz file, told apart by what they
        contain.
      path: where a well-known set is. By default the folder in the environment variable
        DD_JAX_DATA, the system's package folder and tensorflow-datasets are tried in this order;
        nothing is ever downloaded. For "tfds:NAME" the folder of prepared sets.
      size, channels, test_fraction, class_names: of data of your own, where their layout leaves
        them open: size and channels of class folders (see `from_folder`), the share of the test
        part where there is none, names of the classes of idx and .npz files.

    Returns:
      `Split` of `RealData` on the device.

    Raises:
      ConfigError: unknown name, or an option that the data leave no room for.
      DataError: not found (lists what was tried), or damaged.

    Example:
      >>> load().train.spec.shape
      (28, 28, 1)
    """
    require_kind("source", source, (str, os.PathLike), expected="the name or the path of data",
                 fix="pass 'embedded', or call data.from_arrays(images, labels) with arrays")
    text = os.fspath(source)
    options = given(size=size, channels=channels, test_fraction=test_fraction,
                    class_names=class_names)
    if text.startswith("tfds:"):
        _refuse(options, (), text)
        return from_tfds(text.removeprefix("tfds:"), data_dir=path)
    if text in SOURCES and path is None:
        _refuse(options, (), text)
        return SOURCES[text](None)
    if text in SOURCES:
        return SOURCES[text](path, **options)
    if is_path(source):
        return from_path(text, **options)
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


def is_path(source: PathLike) -> bool:
    """Whether a source is a path of the user's: it stands there, or is written as one is.

    Example:
      >>> is_path("nofile.npz"), is_path("fashion_mnist"), is_path("tfds:mnist")
      (True, False, False)
    """
    text = os.fspath(source)
    if text in SOURCES or text.startswith("tfds:"):
        return False
    written = os.sep in text or bool(pathlib.PurePath(text).suffix)
    return written or isinstance(source, pathlib.PurePath) or os.path.exists(text)


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: Mapping[str, Any], takes: tuple[str, ...], what: str) -> None:
    """Refuses options that a layout leaves no room for."""
    for name in options:
        if name not in takes:
            raise ConfigError(f"{name} has no meaning for {what}",
                              fix=f"leave {name} out" + (
                                  f"; it takes {', '.join(takes)}" if takes else ""))


def from_path(path: PathLike, *, name: Optional[str] = None, **options: Any) -> Split:
    """Reads a folder or file of any known layout, recognised by its contents.

    Args:
      path: folder of idx files, of CIFAR binary files or of class folders, or an .npz file.
      name: of the set, by default the path's last part.
      **options: size, channels, test_fraction, class_names, as for `load`.

    Returns:
      `Split`.

    Raises:
      DataError: nothing there, nothing recognised, or damaged.
      ConfigError: an option that the data leave no room for.

    Example:
      >>> from_path("missing")
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: missing: no such file or folder; check the path
    """
    layout, path = _layout(path)
    options = given(**options)
    _refuse(options, layout.takes, f"{path}, {layout.what}")
    return layout.read(path, name=name or _name_of(path), **options)


def options_of(path: PathLike) -> tuple[str, ...]:
    """Which of the options of `load` the data at a path leave open.

    Raises:
      DataError: there are none in a known layout.
    """
    return _layout(path)[0].takes


def _name_of(path: pathlib.Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _layout(path: PathLike) -> tuple[Layout, pathlib.Path]:
    """The layout that a path's contents have.

    Raises:
      DataError: nothing there, or nothing recognised.
    """
    if stands_at(path, error=DataError) == "nothing":
        raise DataError(f"{path}: no such file or folder", fix="check the path")
    path = pathlib.Path(path)
    layout = _recognised(path, LAYOUTS)
    if layout is not None:
        return layout, path
    there = sorted(entry.name for entry in path.iterdir())[:8] if path.is_dir() else ["one file"]
    raise DataError(
        f"{path}: not a data set in a known layout, found {', '.join(there) or 'nothing'}",
        fix="expected idx files (train-images..., t10k-images...), CIFAR .bin files, class "
        "folders of images or an .npz file; anything else goes through from_arrays",
    )


def _recognised(path: pathlib.Path, layouts: Sequence[Layout]) -> Optional[Layout]:
    """The first of the layouts that a path has, or None."""
    try:
        return next((layout for layout in layouts if layout.recognise(path)), None)
    except OSError as error:
        raise unusable(path, error, error=DataError) from None


def _idx_file(folder: pathlib.Path, parts: tuple[str, ...], what: str) -> Optional[pathlib.Path]:
    for part in parts:
        found = sorted(folder.glob(f"{part}-{what}*"))
        if found:
            return found[0]
    return None


def _has_idx(path: pathlib.Path) -> bool:
    return path.is_dir() and _idx_file(path, _TRAIN, "images") is not None


def _read_idx_folder(path: pathlib.Path, *, name: str, class_names=None) -> Split:
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


class Layout(NamedTuple):
    """One way in which data lie on a disk.

    Attributes:
      recognise: (path) -> whether it has this layout.
      read: (path, name, **options) -> Split.
      takes: the options that it leaves open.
      what: it is, for messages.
    """

    recognise: Callable[[pathlib.Path], bool]
    read: Callable[..., Split]
    takes: tuple[str, ...]
    what: str


# Tried in order; class folders come last because any folder with a folder in it looks like them.
LAYOUTS: tuple[Layout, ...] = (
    Layout(_is_npz, from_npz, ("test_fraction", "class_names"), "an .npz file"),
    Layout(_has_idx, _read_idx_folder, ("class_names",), "a folder of idx files"),
    Layout(lambda path: any((path / file).is_file() for file in CIFAR10_FILES), read_cifar10, (),
           "a folder of CIFAR-10 files"),
    Layout(lambda path: (path / "train.bin").is_file(), read_cifar100, (),
           "a folder of CIFAR-100 files"),
    Layout(_has_class_folders, from_folder, ("size", "channels", "test_fraction"),
           "a folder of class folders, whose names are those of the classes"),
)


def _known_at(path: PathLike, known: Known, options: dict[str, Any]) -> Split:
    """A well-known set in a place, with its usual names where the files hold none."""
    if known.class_names is not None and "class_names" in _layout(path)[0].takes:
        options = {"class_names": known.class_names, **options}
    return from_path(path, name=known.name, **options)


def _find(known: Known, path: Optional[PathLike], **options: Any) -> Split:
    """Tries the places of a well-known set in order; damage is reported, not skipped."""
    if path is not None:
        return _known_at(path, known, options)
    tried = []
    base = os.environ.get(ENVIRONMENT)
    folders = list(known.folders)
    if base:
        folders = [os.path.join(base, known.name), base, *folders]
    else:
        tried.append(f"{ENVIRONMENT} (not set)")
    for folder in folders:
        place = pathlib.Path(folder)
        if _recognised(place, LAYOUTS[:-1]) is not None:
            return _known_at(place, known, options)
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


SOURCES: dict[str, Callable[..., Split]] = {
    "embedded": lambda path, **options: load_embedded(),
    NAME: lambda path, **options: load_embedded(),  # what it calls itself in files
    **{known.name: partial(_find, known) for known in KNOWN},
}
