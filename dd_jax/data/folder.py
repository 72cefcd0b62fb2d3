"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import collections
import os
import pathlib
import warnings
from typing import Any, Optional, Union

import numpy as np

from dd_jax.data.files import MAX_BYTES, Allowance, PathLike, checked_file, decoded_limit
from dd_jax.data.places import stands_at
from dd_jax.data.split import split_from_arrays, stratified_rows
from dd_jax.errors import ConfigError, DataError, MissingPackageError, told
from dd_jax.types import Split

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
# What is opened is one of these whatever a file is called: other formats of Pillow start programs.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")
TEST_NAMES = ("test", "val", "valid", "validation")
MAX_PIXELS = 64 * 2**20
# Modes of Pillow with 8 bits or less for a channel; it has wider ones under ever more names.
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
# What is an image, too, but not read; told apart from notes that lie beside images.
_OTHER_SUFFIXES = {".gif", ".jfif", ".jpe", ".apng", ".avif", ".heic", ".heif", ".jp2", ".ico",
                   ".tga", ".pbm", ".pnm", ".svg", ".eps", ".psd", ".dng", ".npy"}
Size = Union[int, tuple[int, int], None]


def from_folder(
    root: PathLike,
    *,
    size: Size = None,
    channels: Optional[int] = None,
    test_fraction: Optional[float] = None,
    seed: int = 0,
    name: Optional[str] = None,
    device: bool = True,
) -> Split:
    """Reads `root/<class>/*.png|jpg|...`, or `root/train/<class>` and `root/test/<class>`.

    Classes are numbered in the order of their sorted folder names, files are read in sorted order.

    Args:
      root: the folder.
      size: side in pixels, or (height, width): each image is cropped about its centre to that
        shape and resized with an anti-aliased bilinear filter. None wants images of one size.
      channels: 1 or 3; by default 1 when every image is grey and 3 otherwise.
      test_fraction: share of each class for the test part, where there is no test folder; by
        default 0.2.
      seed: of that split.
      name: of the set, by default the folder's.
      device: as for `from_arrays`.

    Returns:
      `Split` of uint8 images.

    Raises:
      DataError: no classes, an empty class, an unreadable image, mixed sizes, a link that leaves
        the folder.
      ConfigError: bad `size` or `channels`, or a `test_fraction` beside a test folder.
      MissingPackageError: Pillow is not installed.

    Warns of files in class folders that are not read: how many, and of what kind.

    Example:
      >>> import tempfile
      >>> from_folder(tempfile.mkdtemp())  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      dd_jax.errors.DataError: ...: no class folder with images; ...
    """
    pillow = _pillow()
    stands_at(root, error=DataError)
    root = pathlib.Path(root)
    shape = _check_size(size)
    if channels not in (None, 1, 3):
        raise ConfigError(f"channels is {channels!r}, expected 1, 3 or None", fix="pass 1 or 3")
    name = name or root.resolve().name
    parts, beside = _parts(root)
    if len(parts) == 2 and test_fraction is not None:
        raise ConfigError(f"{root} has a test folder of its own, and test_fraction is "
                          f"{told(test_fraction)}", fix="leave it out")
    found = [_list_classes(part, root) for part in parts]
    left_out = sum((left for _, left in found), collections.Counter(beside))
    if left_out:
        warnings.warn(f"{root}: left out {_counted(left_out)}; what is read is "
                      f"root/<class>/*{'|'.join(sorted(SUFFIXES))}", stacklevel=2)
    listed = [classes for classes, _ in found]
    names = sorted(listed[0])
    for part, classes in zip(parts[1:], listed[1:]):
        if sorted(classes) != names:
            odd = sorted(set(classes) ^ set(names))[:5]
            raise DataError(
                f"{part}: its classes differ from the training folder's in {odd}",
                fix="give both folders the same class folders",
            )
    files = [
        [(file, label) for label, each in enumerate(names) for file in classes[each]]
        for classes in listed
    ]
    held = sum(checked_file(file)[1] for part in files for file, _ in part)
    # What is made smaller or larger is so by the user's own word.
    room = Allowance(held if shape is None else MAX_BYTES, where=str(root))
    decoded = [[_open(pillow, file, shape, room) for file, _ in part] for part in files]
    images = _stack(files, decoded, channels)
    labels = [np.array([label for _, label in part], np.int32) for part in files]
    if len(parts) == 1:
        rows = stratified_rows(labels[0],
                               test_fraction=0.2 if test_fraction is None else test_fraction,
                               seed=seed)
        images, labels = [images[0][r] for r in rows], [labels[0][r] for r in rows]
    pairs = list(zip(images, labels))
    return split_from_arrays(pairs[0], pairs[1], name=name, class_names=names, device=device)


def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except Exception as error:  # a broken install fails in other ways than ImportError
        raise MissingPackageError(
            f"reading image folders needs Pillow, which does not import ({error})",
            fix="install it with: pip install pillow",
        ) from None
    return Image, ImageOps


def _check_size(size: Size) -> Optional[tuple[int, int]]:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else size
    good = isinstance(pair, (tuple, list)) and len(pair) == 2
    good = good and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
    if not good or not 0 < pair[0] * pair[1] <= MAX_PIXELS or min(pair) < 1:
        raise ConfigError(f"size is {told(size)}, expected pixels",
                          fix="pass a side in pixels or (height, width)")
    return tuple(pair)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is in a folder, by name, but for hidden entries."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be listed ({error})", fix="check the path") from None
    return [entry for entry in entries if not entry.name.startswith(".")]


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _parts(root: pathlib.Path) -> tuple[list[pathlib.Path], collections.Counter]:
    """([train, test] where the folder has both, else [root]; what lies beside them)."""
    folders = {folder.name: folder for folder in _subfolders(root)}
    test = next((folders[each] for each in TEST_NAMES if each in folders), None)
    if "train" in folders and test is not None and _subfolders(folders["train"]):
        unused = [name for name in folders if name not in ("train", test.name)]
        return [folders["train"], test], collections.Counter({f"folder {n!r}": 1 for n in unused})
    return [root], collections.Counter()


def _kind(entry: pathlib.Path) -> str:
    """What it is, for a count of what is left out: "folder", ".gif", "other file"."""
    if entry.is_dir():
        return "folder"
    ending = entry.suffix.lower()
    return ending if ending[1:].isalnum() and len(ending) <= 8 else "other file"


def _counted(left_out: collections.Counter) -> str:
    """"3 x .gif, 1 x folder", the most frequent first."""
    ordered = sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{count} x {kind}" for kind, count in ordered[:8])
    return shown + (f" and {len(ordered) - 8} other kinds" if len(ordered) > 8 else "")


def _list_classes(
    part: pathlib.Path, root: pathlib.Path
) -> tuple[dict[str, list[pathlib.Path]], collections.Counter]:
    """(files by class, how many entries of each kind are not read)."""
    inside = os.path.realpath(root) + os.sep
    classes, left_out = {}, collections.Counter()
    images = SUFFIXES | _OTHER_SUFFIXES
    left_out.update(_kind(entry) for entry in _entries(part)
                    if not entry.is_dir() and entry.suffix.lower() in images)
    for folder in _subfolders(part):
        visible = _entries(folder)
        found = [f for f in visible if f.suffix.lower() in SUFFIXES and not f.is_dir()]
        left_out.update(map(_kind, set(visible) - set(found)))
        for file in found:
            if not os.path.realpath(file).startswith(inside):
                raise DataError(f"{file}: a link that leaves {root}", fix="copy the image instead")
        classes[folder.name] = found
    told_left = f" that can be read (left out: {_counted(left_out)})" if left_out else ""
    if not any(classes.values()):
        raise DataError(f"{part}: no class folder with images{told_left}",
                        fix="lay images out as root/<class>/image.png")
    for each, found in classes.items():
        if not found:
            raise DataError(f"{part / each}: no image in this class folder{told_left}",
                            fix="remove it, or write its images as PNG or JPEG")
    return classes, left_out


def _open(
    pillow: Any, file: pathlib.Path, shape: Optional[tuple[int, int]], room: Allowance
) -> Any:
    image_module, ops = pillow
    try:
        with image_module.open(file, formats=FORMATS) as image:
            width, height = image.size
            each, size = (1 if image.mode in _GREY else 4), file.stat().st_size  # bytes in Pillow
            if width * height > MAX_PIXELS or width * height * each > decoded_limit(size):
                raise DataError(f"{file}: {width}x{height} pixels in a file of {size} bytes",
                                fix="shrink it first")
            room.take(each * (width * height if shape is None else shape[0] * shape[1]))
            image.load()
            image = ops.exif_transpose(image)
            if image.mode not in _GREY | _COLOUR:
                raise DataError(
                    f"{file}: pixels of mode {image.mode}, expected at most 8 bits a channel",
                    fix="save it with 8 bits",
                )
            image = image.convert("L" if image.mode in _GREY else "RGB")
            if shape is not None:
                method = image_module.Resampling.BILINEAR
                image = ops.fit(image, (shape[1], shape[0]), method=method)
            return image
    except DataError:
        raise
    # Image decoders fail in many ways on damaged files; all mean that the file is unusable.
    except Exception as error:
        raise DataError(
            f"{file}: not a readable image ({type(error).__name__}: {error})",
            fix="remove or replace it",
        ) from None


def _stack(files: list, decoded: list, channels: Optional[int]) -> list[np.ndarray]:
    """[N, H, W, C] uint8 per part, after checking that all images have one size."""
    flat = [(file, image) for part, images in zip(files, decoded)
            for (file, _), image in zip(part, images)]  # fmt: skip
    first_file, first = flat[0]
    for file, image in flat:
        if image.size != first.size:
            raise DataError(
                f"mixed sizes (width, height): {first_file} is {first.size} and {file} "
                f"is {image.size}",
                fix="pass size=32, for example, to crop and resize every image",
            )
    grey = channels == 1 or (channels is None and all(image.mode == "L" for _, image in flat))
    mode = "L" if grey else "RGB"
    return [np.stack([np.asarray(image.convert(mode)) for image in images]) for images in decoded]
