"""A distilled set in the formats of other tools: NumPy, PNG folders, safetensors, PyTorch."""

from __future__ import annotations

import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np

from dd_jax.data.normalise import denormalise
from dd_jax.data.places import stands_at
from dd_jax.errors import MissingPackageError, SetFileError, require_kind, unknown
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.checks import validate
from dd_jax.store.label_store import copy_label_store, label_store_path
from dd_jax.store.record import DistilledSet
from dd_jax.store.setfile import card_of
from dd_jax.types import SyntheticSet

_NORMALISER_ARRAYS = ("mean", "std", "pixel_mean", "whiten", "unwhiten")
_PNG_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_OWN_FOLDER, _OWN_FILE = re.compile(r"\d{3,}_[A-Za-z0-9_-]+"), re.compile(r"\d{3,}\.png")


def as_numpy(distilled: DistilledSet) -> dict[str, np.ndarray]:
    """The set as plain NumPy arrays, with all that a foreign trainer needs.

    Args:
      distilled: the set.

    Returns:
      images [M, H, W, C] float32 in model space: train on these.
      images_unit [M, H, W, C] float32 in [0, 1]: look at these. Where the normaliser works per
      image, brightness and contrast are lost, and each image is stretched to fill [0, 1]; not so
      those that are stored as pixels.
      pixels [M, H, W, C] uint8, where they are stored so.
      labels as stored, [M, K] float32 or class numbers [M] int32; hard_labels [M] int32, the class
      or the largest label (not for representations, which name no class).
      weights [M] float32, where images have them.
      learning_rate [] or [T] and log_temperature [] float32, where they were learned.
      normaliser_mean [C], normaliser_std [C] and, where fitted, normaliser_pixel_mean [d],
      normaliser_whiten [d, d], normaliser_unwhiten [d, d] with d = H*W*C, flattened in
      that order: apply these to test images.
      class_names [K] fixed-width text; card, JSON text that says what the labels mean.
      A label store stays in its file: `dd_jax.store.read_targets` reads it.

    Raises:
      SetFileError: the set is not valid.

    Example:
      >>> from dd_jax.data.normalise import identity
      >>> from dd_jax.types import DataSpec, SyntheticSet
      >>> images, labels = np.full((2, 4, 4, 1), 2, np.float32), np.eye(2, dtype=np.float32)
      >>> made = DistilledSet(SyntheticSet(images, labels), identity((4, 4, 1)), "one_hot",
      ...                     DataSpec("toy", (4, 4, 1), 2, ("a", "b")))
      >>> arrays = as_numpy(made)
      >>> float(arrays["images_unit"].max()), arrays["hard_labels"].tolist()
      (1.0, [0, 1])
    """
    require_kind("the set", distilled, DistilledSet, expected="a DistilledSet",
                 fix="pass what dd.distill or dd.load gives")
    validate(distilled)
    synthetic, normaliser = distilled.synthetic, distilled.normaliser
    arrays = {
        "images": np.array(distilled.trainable().images),
        "images_unit": _unit_images(distilled),
        "labels": np.array(synthetic.labels),
        "class_names": np.array(distilled.spec.class_names, dtype=np.str_),
        "card": np.array(json.dumps(card_of(distilled), sort_keys=True)),
    }
    if _has_pixels(distilled):
        arrays["pixels"] = np.array(synthetic.images)
    if distilled.hard_labels is not None:
        arrays["hard_labels"] = distilled.hard_labels
    for name in SyntheticSet._fields[2:]:
        if getattr(synthetic, name) is not None:
            arrays[name] = np.array(getattr(synthetic, name))
    for name in _NORMALISER_ARRAYS:
        array = getattr(normaliser, name)
        if array is not None:
            arrays[f"normaliser_{name}"] = np.array(array, dtype=np.float32)
    return arrays


def export(
    distilled: DistilledSet, to: str, folder_or_path: PathLike, *, overwrite: bool = False
) -> list[pathlib.Path]:
    """Writes the set for other tools.

    "npz"          the arrays of `as_numpy`, uncompressed; read with np.load(allow_pickle=False).
    "png"          a folder for each class with 000.png, 001.png, ... in [0, 1], named
                   in the order of labels; the class of an image is its largest label, so soft
                   labels and learned rates stay behind.
    "safetensors"  images, images_unit and the other number arrays, without the dd_jax card.
    "torch"        the same with images [M, C, H, W] and the whitening in that order, as
                   safetensors: a .pt file is a pickle, which this library neither writes nor
                   reads. `torch_snippet` gives the lines that load it.

    A label store is safetensors that any tool reads: it is copied beside the file, as
    NAME.labels.safetensors, and left behind by "png".

    Args:
      distilled: the set.
      to: one of the names above.
      folder_or_path: for "png" the folder; else the file, or a folder that exists, in which it
        is then called distilled.npz or distilled.safetensors.
      overwrite: replace a file, or the images of an earlier export in the folder. Other files
        in the folder are never touched.

    Returns:
      The paths written.

    Raises:
      ConfigError: `to` is unknown.
      SetFileError: the place is taken or cannot be written, or the format cannot hold the set.
      MissingPackageError: "png" without Pillow.

    Example:
      >>> import tempfile
      >>> from dd_jax.data.normalise import identity
      >>> from dd_jax.types import DataSpec, SyntheticSet
      >>> images, labels = np.zeros((2, 4, 4, 1), np.float32), np.eye(2, dtype=np.float32)
      >>> made = DistilledSet(SyntheticSet(images, labels), identity((4, 4, 1)), "one_hot",
      ...                     DataSpec("toy", (4, 4, 1), 2, ("a", "b")))
      >>> [path.name for path in export(made, "npz", tempfile.mkdtemp())]
      ['distilled.npz']
    """
    if not isinstance(to, str) or to not in EXPORTS:
        raise unknown("export format", to, EXPORTS)
    require_kind("the place", folder_or_path, (str, os.PathLike), expected="a path",
                 fix="call export(set, 'npz', path)")
    return EXPORTS[to](distilled, pathlib.Path(folder_or_path), overwrite)


def torch_snippet(path: PathLike) -> str:
    """The lines of Python that load a "torch" export in PyTorch.

    Example:
      >>> print(torch_snippet("toy.safetensors").splitlines()[1])
      tensors = load_file('toy.safetensors')
    """
    return "\n".join(
        [
            "from safetensors.torch import load_file",
            f"tensors = load_file({str(path)!r})",
            "images = tensors['images']  # [M, C, H, W], normalised: train on these",
            "labels = tensors['labels']  # [M, K], or [M] where they are class numbers",
            "mean, std = tensors['normaliser_mean'], tensors['normaliser_std']  # [C]: test images",
        ]
    )


def folder_name(index: int, class_name: str, *, classes: int = 1000) -> str:
    """A folder name for a class that is safe on every file system.

    The number keeps folders unique, sorted by label and clear of reserved names: of as many digits
    for each of `classes`, since other tools read labels off the order of names.

    Example:
      >>> folder_name(3, "T-shirt/top")
      '003_T-shirt_top'
    """
    ascii_name = unicodedata.normalize("NFKD", class_name[:200]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9-]+", "_", ascii_name).strip("_-")[:40]
    return f"{numbered(index, classes)}_{slug or 'class'}"


def numbered(index: int, count: int) -> str:
    """The number as text that sorts as numbers do among `count` of them; three digits at least.

    Example:
      >>> numbered(7, 10), numbered(7, 10_001)
      ('007', '00007')
    """
    return f"{index:0{max(3, len(str(count - 1)))}d}"


def pillow_image() -> Any:
    """The module `PIL.Image`, or an error that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError(
            "writing PNG images needs Pillow, which does not import", fix="pip install pillow"
        ) from error
    return Image


def _unit_images(distilled: DistilledSet) -> np.ndarray:
    """[M, H, W, C] in [0, 1] for the eye."""
    if _has_pixels(distilled):
        return np.asarray(distilled.synthetic.images, np.float32) / np.float32(255)
    unit = np.asarray(denormalise(distilled.normaliser, distilled.synthetic.images), np.float32)
    if distilled.normaliser.per_image:
        # Unit-norm images would otherwise all come out as nearly the same flat grey.
        axes = (1, 2, 3)
        low, high = unit.min(axes, keepdims=True), unit.max(axes, keepdims=True)
        unit = np.where(high > low, (unit - low) / np.where(high > low, high - low, 1.0), 0.5)
    return np.clip(unit, 0.0, 1.0).astype(np.float32)


def _has_pixels(distilled: DistilledSet) -> bool:
    return distilled.synthetic.images.dtype == np.uint8


def _write(
    distilled: DistilledSet, path: pathlib.Path, name: str, overwrite: bool,
    write: Callable[[Any], object],
) -> list[pathlib.Path]:
    """Writes one file, and a copy of the label store beside it if there is one."""
    path = path / name if stands_at(path, error=SetFileError) == "folder" else path
    store, copy = distilled.label_store, label_store_path(path.with_suffix(""))
    if store is not None and store.path and copy.exists() and copy.samefile(store.path):
        store = None  # it is there already
    for place in (path,) if store is None else (path, copy):
        if stands_at(place, error=SetFileError) != "nothing" and not overwrite:
            raise SetFileError(f"{place} exists", fix="pass overwrite=True or choose another path")
    # The store first: if it is gone, nothing is written.
    copies = [] if store is None else [copy_label_store(store, copy)]
    return [write_atomically(path, write), *copies]


def _export_npz(distilled: DistilledSet, path: pathlib.Path, overwrite: bool) -> list[pathlib.Path]:
    arrays = as_numpy(distilled)
    return _write(distilled, path, "distilled.npz", overwrite,
                  lambda file: np.savez(file, **arrays))


def _numbers(distilled: DistilledSet) -> dict[str, np.ndarray]:
    return {name: a for name, a in as_numpy(distilled).items() if a.dtype.kind != "U"}


def _write_tensors(
    distilled: DistilledSet, path: pathlib.Path, overwrite: bool, arrays: dict[str, np.ndarray]
) -> list[pathlib.Path]:
    import safetensors.numpy

    blob = safetensors.numpy.save({k: np.array(a, order="C") for k, a in arrays.items()})
    return _write(distilled, path, "distilled.safetensors", overwrite,
                  lambda file: file.write(blob))


def _export_safetensors(
    distilled: DistilledSet, path: pathlib.Path, overwrite: bool
) -> list[pathlib.Path]:
    return _write_tensors(distilled, path, overwrite, _numbers(distilled))


def _export_torch(
    distilled: DistilledSet, path: pathlib.Path, overwrite: bool
) -> list[pathlib.Path]:
    arrays = _numbers(distilled)
    for name in ("images", "images_unit", "pixels"):
        if name in arrays:
            arrays[name] = arrays[name].transpose(0, 3, 1, 2)
    # Whitening acts on flattened images, so its rows and columns must move with the pixels.
    shape = distilled.spec.shape
    order = np.arange(int(np.prod(shape))).reshape(shape).transpose(2, 0, 1).ravel()
    if "normaliser_pixel_mean" in arrays:
        arrays["normaliser_pixel_mean"] = arrays["normaliser_pixel_mean"][order]
    for name in ("normaliser_whiten", "normaliser_unwhiten"):
        if name in arrays:
            arrays[name] = arrays[name][np.ix_(order, order)]
    # PyTorch indexes with 64-bit integers, and its losses refuse 32-bit class numbers.
    for name in ("labels", "hard_labels"):
        if name in arrays and arrays[name].dtype == np.int32:
            arrays[name] = arrays[name].astype(np.int64)
    return _write_tensors(distilled, path, overwrite, arrays)


def _export_png(
    distilled: DistilledSet, folder: pathlib.Path, overwrite: bool
) -> list[pathlib.Path]:
    channels = distilled.spec.shape[-1]
    if channels not in _PNG_MODES:
        raise SetFileError(
            f"PNG cannot hold images of {channels} channels, expected 1, 3 or 4",
            fix="export to npz",
        )
    if distilled.label_kind == "representations":
        raise SetFileError("PNG folders are classes, and the labels are representations",
                           fix="export to npz")
    pillow = pillow_image()
    arrays = as_numpy(distilled)
    _clear_folder(folder, overwrite)
    pixels = np.rint(arrays["images_unit"] * 255).astype(np.uint8)
    paths = []
    for k, name in enumerate(distilled.spec.class_names):
        rows = np.flatnonzero(arrays["hard_labels"] == k)
        inside = folder / folder_name(k, name, classes=distilled.spec.num_classes)
        for i, row in enumerate(rows):
            image = pixels[row, :, :, 0] if channels == 1 else pixels[row]
            picture = pillow.fromarray(image)
            paths.append(_save_png(picture, inside / f"{numbered(i, len(rows))}.png"))
    return paths


def _save_png(picture: Any, path: pathlib.Path) -> pathlib.Path:
    return write_atomically(path, lambda file: picture.save(file, format="PNG"))


def _clear_folder(folder: pathlib.Path, overwrite: bool) -> None:
    """Takes the images of an earlier export away; left there, they would mix with the new."""
    kind = stands_at(folder, error=SetFileError)
    if kind not in ("nothing", "folder"):
        raise SetFileError(f"{folder} is a file, expected a folder", fix="choose another folder")
    try:
        found = sorted(folder.iterdir()) if kind == "folder" else []
        if found and not overwrite:
            raise SetFileError(
                f"{folder} is not empty", fix="pass overwrite=True or choose another folder"
            )
        for sub in found:
            if sub.is_symlink() and _OWN_FOLDER.fullmatch(sub.name):
                raise SetFileError(f"{sub} is a link, and images would be written where it leads",
                                   fix="remove it or choose another folder")
            if sub.is_dir() and not sub.is_symlink() and _OWN_FOLDER.fullmatch(sub.name):
                for file in sub.iterdir():
                    if _OWN_FILE.fullmatch(file.name):
                        file.unlink()
                if not any(sub.iterdir()):
                    sub.rmdir()
    except OSError as error:
        raise SetFileError(
            f"cannot use {folder}: {error.strerror}", fix="choose a folder that is writable"
        ) from error


EXPORTS: dict[str, Callable[[DistilledSet, pathlib.Path, bool], list[pathlib.Path]]] = {
    "npz": _export_npz,
    "png": _export_png,
    "safetensors": _export_safetensors,
    "torch": _export_torch,
}
