"""Distilled images as a picture: a NumPy mosaic, a PNG file, a figure for a notebook."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dd_jax.errors import ConfigError
from dd_jax.report.figures import FONT_SIZE, blank_figure, caption
from dd_jax.store.atomic import PathLike, write_atomically
from dd_jax.store.export import as_numpy, pillow_image
from dd_jax.store.record import DistilledSet

GAP = 2
_WHITE = 255
_TILE = 112  # pixels of an image where each stands alone, and where it is one of many
_TILE_IN_ROW = 64
_TEXT_HEIGHT, _TEXT_WIDTH = 20, 120
# A picture is for looking at: beyond this it is cut, and says so. Also keeps it below the
# 65,536 pixels a side that rasterisers stop at.
MAX_CLASSES, MAX_CLASSES_IN_ROWS, MAX_PER_CLASS = 200, 50, 20


def grid(
    images_unit: np.ndarray, *, columns: int, scale: int | None = None, gap: int = GAP
) -> np.ndarray:
    """Lays images out row by row with white gaps, each pixel enlarged to a square.

    Args:
      images_unit: [M, H, W, C] float in [0, 1] (clipped to it; not-a-number becomes 0), or
        uint8. Of two channels the mean is shown, of four or more the first three.
      columns: images in a row; at least 1.
      scale: pixels of the picture for a pixel of an image; None picks the least that makes
        images at least 112 pixels high.
      gap: pixels between images; at least 0.

    Returns:
      [h, w, 3] uint8 with h = rows * (H * scale + gap) - gap, and w likewise.

    Raises:
      ConfigError: images that are not [M, H, W, C], or a size that is too small.

    Example:
      >>> grid(np.zeros((3, 4, 4, 1)), columns=2, scale=2).shape
      (18, 18, 3)
    """
    tiles = _tiles(images_unit)
    scale = default_scale(tiles.shape[1]) if scale is None else scale
    for name, value, least in (("columns", columns, 1), ("scale", scale, 1), ("gap", gap, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ConfigError(
                f"{name} is {value!r}, expected an integer of at least {least}",
                fix=f"pass {name}={least} or more",
            )
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = tiles.shape
    rows, columns = math.ceil(count / columns), min(columns, count)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    picture = np.full(shape, _WHITE, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        picture[top : top + height, left : left + width] = tile
    return picture


def default_scale(height: int, *, tile: int = _TILE) -> int:
    """The least whole number that enlarges `height` pixels to `tile` pixels.

    Example:
      >>> default_scale(28), default_scale(224)
      (4, 1)
    """
    return max(1, math.ceil(tile / height))


def save_grid(
    path: PathLike,
    distilled_or_images: DistilledSet | np.ndarray,
    *,
    titles: bool | Sequence[str] | None = None,
    columns: int | None = None,
    scale: int | None = None,
) -> pathlib.Path:
    """Writes a PNG of a distilled set, or of images in [0, 1].

    A set with one image for each class becomes a captioned mosaic, with more images it becomes
    a row for each class. Images alone become the mosaic of `grid`, and so do those of a set whose
    labels are representations, which name no class.

    Args:
      path: the PNG file; replaced if it exists.
      distilled_or_images: a set, or [M, H, W, C] as in `grid`.
      titles: for a set, False leaves the class names away (and needs no matplotlib); for
        images, a caption for each, or nothing.
      columns: images in a row; None lets the layout choose.
      scale: as in `grid`.

    Returns:
      The path.

    Raises:
      ConfigError: titles or sizes that do not fit the images.
      MissingPackageError: Pillow, or for captions matplotlib, is not installed.
      SetFileError: the file cannot be written.
    """
    distilled_or_images = _images_where_no_classes(distilled_or_images)
    if isinstance(distilled_or_images, DistilledSet):
        if titles is not None and not isinstance(titles, bool):
            raise ConfigError(
                f"titles is {titles!r} for a set, expected True or False",
                fix="leave titles out; the names come from the set",
            )
        captioned = titles is not False
    else:
        captioned = titles is not None and not isinstance(titles, bool)
    if captioned:
        names = None if isinstance(titles, bool) else titles
        made = figure(distilled_or_images, titles=names, columns=columns, scale=scale)
        return write_atomically(path, lambda file: made.savefig(file, format="png"))
    if isinstance(distilled_or_images, DistilledSet):
        images, per_row = _uncaptioned(distilled_or_images)
    else:
        images = np.asarray(distilled_or_images)
        per_row = _balanced_columns(len(images))
    picture = grid(images, columns=per_row if columns is None else columns, scale=scale)
    image = pillow_image().fromarray(picture)
    return write_atomically(path, lambda file: image.save(file, format="PNG"))


def figure(
    distilled_or_images: DistilledSet | np.ndarray,
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    scale: int | None = None,
) -> Any:
    """The picture of `save_grid` with captions, as a matplotlib Figure for a notebook.

    Args:
      distilled_or_images: a set, or [M, H, W, C] as in `grid`.
      titles: captions for images alone; a set brings its class names.
      columns: images in a row of a mosaic; None chooses.
      scale: pixels of the picture for a pixel of an image; None chooses.

    Returns:
      A `matplotlib.figure.Figure` bound to no window and to no pyplot state.

    Raises:
      ConfigError: as many titles as images are needed.
      MissingPackageError: matplotlib is not installed.
    """
    distilled_or_images = _images_where_no_classes(distilled_or_images)
    if not isinstance(distilled_or_images, DistilledSet):
        images = np.asarray(distilled_or_images)
        names = [""] * len(images) if titles is None else list(titles)
        if len(names) != len(images):
            raise ConfigError(
                f"{len(names)} titles for {len(images)} images", fix="pass a title for each image"
            )
        return _mosaic_figure(images, names, columns, scale)
    arrays = as_numpy(distilled_or_images)
    by_class = _by_class(arrays)
    names = [str(name) for name in arrays["class_names"]]
    if max(map(len, by_class)) > 1:
        return _rows_figure(by_class, names, scale)
    present = [k for k in range(len(names)) if len(by_class[k])][:MAX_CLASSES]
    left_out = sum(1 for images in by_class if len(images)) - len(present)
    footer = f"{left_out} more classes are not shown" if left_out else ""
    images = np.concatenate([by_class[k] for k in present])
    return _mosaic_figure(images, [names[k] for k in present], columns, scale, footer)


def _mosaic_figure(
    images: np.ndarray,
    names: Sequence[str],
    columns: int | None,
    scale: int | None,
    footer: str = "",
) -> Any:
    """Every image with its caption under it."""
    tiles = _tiles(images)
    scale = default_scale(tiles.shape[1]) if scale is None else scale
    columns = _balanced_columns(len(tiles)) if columns is None else min(columns, len(tiles))
    height, width = tiles.shape[1] * scale, tiles.shape[2] * scale
    cell_h, cell_w = height + _TEXT_HEIGHT + 8, max(width, _TEXT_HEIGHT) + 12
    rows = math.ceil(len(tiles) / columns)
    footer_height = _TEXT_HEIGHT if footer else 0
    made, axes = blank_figure(columns * cell_w + 12, rows * cell_h + 12 + footer_height)
    for i, (tile, name) in enumerate(zip(tiles, names)):
        left, top = 12 + (i % columns) * cell_w, 12 + (i // columns) * cell_h
        _draw(axes, tile, left, top, scale)
        text = caption(name, width=cell_w - 4)
        _write(axes, left + width / 2, top + height + 4, text, ha="center", va="top")
    if footer:
        _write(axes, 12, rows * cell_h + 10, footer, va="top")
    return made


def _rows_figure(
    by_class: Sequence[np.ndarray], names: Sequence[str], scale: int | None
) -> Any:
    """A row for each class, its name at the left."""
    shown = [images[:MAX_PER_CLASS] for images in by_class[:MAX_CLASSES_IN_ROWS]]
    height, width = by_class[0].shape[1:3]
    scale = default_scale(height, tile=_TILE_IN_ROW) if scale is None else scale
    longest = max(map(len, shown))
    cell_h, cell_w = height * scale + GAP, width * scale + GAP
    cell_h_text = max(cell_h, _TEXT_HEIGHT)
    cut = max(map(len, by_class)) > longest or len(by_class) > len(shown)
    footer_height = _TEXT_HEIGHT if cut else 0
    made, axes = blank_figure(
        _TEXT_WIDTH + longest * cell_w + 12, len(shown) * cell_h_text + 20 + footer_height
    )
    for row, (images, name) in enumerate(zip(shown, names)):
        top = 10 + row * cell_h_text
        text = caption(name, width=_TEXT_WIDTH - 16)
        _write(axes, _TEXT_WIDTH - 8, top + cell_h / 2, text, ha="right", va="center")
        if len(images):
            strip = grid(images, columns=len(images), scale=scale)
            _draw(axes, strip, _TEXT_WIDTH, top, 1)
    if cut:
        note = (
            f"shown: {len(shown)} of {len(by_class)} classes, {longest} of "
            f"{max(map(len, by_class))} images in a class"
        )
        _write(axes, 12, 12 + len(shown) * cell_h_text, note, va="top")
    return made


def _draw(axes: Any, tile: np.ndarray, left: int, top: int, scale: int) -> None:
    """Places pixels at pixel coordinates; repeating them here keeps them exact squares."""
    tile = tile.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = tile.shape[:2]
    extent = (left, left + width, top + height, top)
    # blank_figure fixed the limits, so imshow leaves one data unit one pixel
    axes.imshow(tile, extent=extent, interpolation="nearest", aspect="auto", origin="upper")


def _write(axes: Any, x: float, y: float, text: str, **place: str) -> None:
    # parse_math would read a dollar sign in a class name as the start of a formula
    axes.text(x, y, text, fontsize=FONT_SIZE, parse_math=False, **place)


def _images_where_no_classes(shown: DistilledSet | np.ndarray) -> DistilledSet | np.ndarray:
    if isinstance(shown, DistilledSet) and shown.label_kind == "representations":
        return as_numpy(shown)["images_unit"]
    return shown


def _by_class(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    labels = arrays["hard_labels"]
    return [arrays["images_unit"][labels == k] for k in range(len(arrays["class_names"]))]


def _uncaptioned(distilled: DistilledSet) -> tuple[np.ndarray, int]:
    """The images of a set with a white tile where a class has fewer than another."""
    by_class = _by_class(as_numpy(distilled))[:MAX_CLASSES]
    longest = min(max(map(len, by_class)), MAX_PER_CLASS)
    if longest <= 1:
        images = np.concatenate(by_class)
        return images, _balanced_columns(len(images))
    blank = np.ones((longest, *by_class[0].shape[1:]), np.float32)
    rows = [np.concatenate([images, blank])[:longest] for images in by_class]
    return np.concatenate(rows), longest


def _balanced_columns(count: int) -> int:
    """Columns of a mosaic: five for ten images, ten at most."""
    if count <= 5:
        return max(1, count)
    return min(10, 5 if count <= 25 else 10)


def _tiles(images: np.ndarray) -> np.ndarray:
    """[M, H, W, C] of any kind to [M, H, W, 3] uint8."""
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape or images.dtype.kind not in "fu":
        raise ConfigError(
            f"images have shape {images.shape} and dtype {images.dtype}, expected [M, H, W, C] "
            "of floats in [0, 1] or uint8",
            fix="pass the images_unit of dd_jax.store.as_numpy",
        )
    if images.dtype != np.uint8:
        clean = np.nan_to_num(images.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
        images = np.rint(np.clip(clean, 0.0, 1.0) * 255).astype(np.uint8)
    if images.shape[-1] >= 3:
        return images[..., :3]
    return images.mean(axis=-1, keepdims=True).astype(np.uint8).repeat(3, axis=-1)
