"""Line charts, and the bare figure that pictures are drawn on; matplotlib only when drawing."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dd_jax.errors import ConfigError, MissingPackageError
from dd_jax.store.atomic import PathLike, write_atomically

_DPI = 100
FONT_SIZE = 10  # points
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# Distinct in print, in grey and to most colour-blind readers.
_COLOURS = ("#1b4f72", "#c0392b", "#1e8449", "#7d3c98", "#b9770e", "#566573")


def figure_class() -> Any:
    """matplotlib's `Figure` that also shows itself as the result of a notebook cell.

    Unlike pyplot it keeps no global state and opens no window; and unlike a plain `Figure` it needs
    no `%matplotlib inline` to be seen.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            "charts and captions need matplotlib, which does not import",
            fix="pip install matplotlib, or pass titles=False for a grid without captions",
        ) from error

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return ShownFigure


def blank_figure(width: int, height: int) -> tuple[Any, Any]:
    """A white figure whose one Axes counts in pixels from the top left.

    Args:
      width: in pixels.
      height: in pixels.

    Returns:
      (figure, axes), the limits of the axes fixed.
    """
    made = figure_class()(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    axes = made.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return made, axes


def caption(name: str, *, width: int) -> str:
    """A class name as one short line that the default font can draw.

    Args:
      name: any text.
      width: the most pixels that it may take at `FONT_SIZE`.

    Returns:
      The name with runs of blanks and control characters as one blank, characters that the
      font lacks as "?", and the tail as an ellipsis where it is too long.
    """
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    font.set_size(FONT_SIZE, _DPI)

    def fits(line: str) -> bool:
        font.set_text(line)
        return font.get_width_height()[0] / 64 <= width  # in 64ths of a pixel

    # no caption shows more than 100 characters, so a huge name is cut before it is measured
    text = "".join(c if c.isprintable() else " " for c in name[:1000])
    text = " ".join(text.split())[:100]
    text = "".join(c if font.get_char_index(ord(c)) else "?" for c in text)
    if fits(text):
        return text
    while text and not fits(text + _ELLIPSIS):
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS


def curve(
    path: PathLike,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> pathlib.Path:
    """Writes a PNG line chart, for example of accuracy against seconds.

    Args:
      path: the PNG file; replaced if it exists.
      series: name -> (xs, ys) of equal length; points that are not finite leave a gap.
      xlabel: with the unit, for example "time (s)".
      ylabel: likewise.
      log: whether the horizontal axis is logarithmic; xs are then above 0.

    Returns:
      The path.

    Raises:
      ConfigError: no series, or one whose xs and ys differ in length, or that has an x that a
        logarithmic axis does not.
      MissingPackageError: matplotlib is not installed.
      SetFileError: the file cannot be written.
    """
    if not series:
        raise ConfigError("series is empty", fix="pass at least one name: (xs, ys)")
    points = {name: _points(name, xs, ys) for name, (xs, ys) in series.items()}
    for name, (xs, _) in points.items():
        if log and not (xs > 0).all():
            raise ConfigError(f"series {name!r} has the x {xs.min():g}, expected more than 0 on a "
                              "logarithmic axis", fix="leave it out, or pass log=False")
    made = figure_class()(figsize=(6.4, 4.0), dpi=2 * _DPI, facecolor="white", layout="constrained")
    axes = made.add_subplot()
    for i, (name, (xs, ys)) in enumerate(points.items()):
        marker = "o" if len(xs) <= 30 else None
        axes.plot(
            xs, ys, color=_COLOURS[i % len(_COLOURS)], linewidth=1.5, marker=marker, markersize=3.5,
            linestyle=("-", "--", ":")[(i // len(_COLOURS)) % 3], label=caption(name, width=300),
        )  # fmt: skip
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(xlabel, parse_math=False)
    axes.set_ylabel(ylabel, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    if len(points) > 1:
        for text in axes.legend(frameon=False, fontsize=9).get_texts():
            text.set_parse_math(False)
    return write_atomically(path, lambda file: made.savefig(file, format="png"))


def _points(name: str, xs: Sequence[float], ys: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    xs, ys = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    if xs.ndim != 1 or xs.shape != ys.shape:
        raise ConfigError(
            f"series {name!r} has xs of shape {xs.shape} and ys of shape {ys.shape}, expected two "
            "lists of equal length",
            fix="pass one y for each x",
        )
    return xs, np.where(np.isfinite(ys), ys, np.nan)
