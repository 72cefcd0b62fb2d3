"""The geometry of a poster: its size, where patches and class areas lie. NumPy, once, on the host.

Windows are spread evenly over a line of pixels: of n windows of w pixels on a line of s, window i
begins at round(i (s - w) / (n - 1)), halves to the even number.
"""

from __future__ import annotations

import math

import numpy as np

from dd_jax.errors import ConfigError, require_whole
from dd_jax.synthetic.class_order import check_grid, two_sizes


def poster_shape(
    ipc: float, image_shape: tuple[int, int, int], *, class_grid: tuple[int, int]
) -> tuple[int, int]:
    """The poster of at most the pixels of `ipc` images per class, with the aspect of its grid.

    H = floor(rows * h * sqrt(ipc)) and W = floor(ipc * K * h * w / H), each at least the side of an
    image. The budget is never exceeded and missed by less than a row or column of pixels.

    Args:
      ipc: images per class, at least 1 / K: a poster holds at least one image.
      image_shape: (h, w, C) of an image.
      class_grid: (rows, columns) of the areas, together K.

    Returns:
      (H, W).

    Raises:
      ConfigError: wrong sizes, or a budget below one image.

    Example:
      >>> poster_shape(0.9, (32, 32, 3), class_grid=(2, 5))
      (60, 153)
    """
    rows, columns = check_grid(class_grid)
    image_height, image_width = two_sizes("image", image_shape[:2], example=(32, 32))
    least = 1.0 / (rows * columns)
    number = isinstance(ipc, (int, float)) and not isinstance(ipc, bool) and math.isfinite(ipc)
    pixels = ipc * rows * columns * image_height * image_width if number else 0
    budget = math.floor(round(pixels, 6))  # rounded, so that a third of three images is one image
    if budget < image_height * image_width:
        raise ConfigError(f"ipc is {ipc!r}, expected at least 1 / {rows * columns}: a poster holds "
                          "at least one image", fix=f"pass ipc={math.ceil(1000 * least) / 1000:g}")
    height = max(image_height, math.floor(rows * image_height * math.sqrt(ipc)))
    if budget // height < image_width:
        return budget // image_width, image_width
    return height, budget // height


def patch_counts(
    shape: tuple[int, int], image_shape: tuple[int, int, int], *, stride: float = 0.25
) -> tuple[int, int]:
    """Patches along each side of a poster, whose corners are about `stride` images apart.

    Officially the numbers are chosen by hand: corners are a sixth to a half of an image apart. They
    are never fewer than cover the poster.

    Args:
      shape: (H, W) of the poster.
      image_shape: (h, w, C).
      stride: in sides of an image, above 0.

    Returns:
      (vertical, horizontal), at least 1 each and at most as many as there are places.

    Raises:
      ConfigError: wrong sizes or stride.

    Example:
      >>> patch_counts((60, 153), (32, 32, 3))
      (5, 16)
      >>> patch_counts((28, 30), (28, 28, 1))
      (1, 2)
    """
    number = isinstance(stride, (int, float)) and not isinstance(stride, bool)
    if not number or not 0 < stride < math.inf:
        raise ConfigError(f"stride is {stride!r}, expected a number above 0",
                          fix="pass stride=0.25")
    shape, _ = check_sizes(shape, image_shape)
    rooms = [(size - side, side) for size, side in zip(shape, image_shape)]
    wanted = (1 + min(room, round(room / (stride * side))) for room, side in rooms)
    return tuple(map(max, wanted, covering_counts(shape, image_shape)))


def covering_counts(shape, image_shape) -> tuple[int, int]:
    """The fewest patches along each side that leave no pixel of the poster out.

    Rounding their corners opens no gap: corners at most a side apart before it are so after it.

    Example:
      >>> covering_counts((60, 153), (32, 32, 3))
      (2, 5)
    """
    return tuple(-(-size // side) for size, side in zip(shape, image_shape))


def check_sizes(shape, image_shape) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """The sizes of a poster and its images as tuples of int.

    Raises:
      ConfigError: no sizes, or a poster smaller than an image.

    Example:
      >>> check_sizes([8, 9], [4, 4, 1])
      ((8, 9), (4, 4, 1))
    """
    shape = two_sizes("poster", shape, example=(60, 153))
    if not isinstance(image_shape, (tuple, list)) or len(image_shape) != 3:
        raise ConfigError(f"image_shape is {image_shape!r}, expected (height, width, channels)",
                          fix="pass the shape of the data's spec")
    for size in image_shape:
        require_whole("a size of the image", size)
    image_shape = tuple(int(size) for size in image_shape)
    if shape[0] < image_shape[0] or shape[1] < image_shape[1]:
        raise ConfigError(
            f"the poster is {shape[0]}x{shape[1]}, smaller than an image of "
            f"{image_shape[0]}x{image_shape[1]}", fix="take its shape from poster_shape")
    return shape, image_shape


def corners(size: int, window: int, count: int) -> np.ndarray:
    """Where `count` windows begin on a line, [count] int32.

    Example:
      >>> corners(12, 4, 4).tolist()
      [0, 3, 5, 8]
    """
    return np.linspace(0, size - window, count).round().astype(np.int32)


def patch_corners(shape, window, counts) -> np.ndarray:
    """Upper left corners of all patches, [M, 2] int32 as (y, x): column after column of patches.

    Args:
      shape: (H, W) of the poster, or of its label map.
      window: (height, width) of a patch.
      counts: (vertical, horizontal), M together.

    Example:
      >>> patch_corners((4, 6), (2, 3), (2, 2)).tolist()
      [[0, 0], [2, 0], [0, 3], [2, 3]]
    """
    ys, xs = (corners(*line) for line in zip(shape, window, counts))
    return np.stack([np.tile(ys, len(xs)), np.repeat(xs, len(ys))], axis=1)


def area_size(shape, area, grid) -> tuple[int, int]:
    """The sides of a class area: as given, or larger where areas would leave pixels between them.

    Example:
      >>> area_size((4, 20), (4, 4), (1, 4))
      (4, 5)
    """
    return tuple(max(side, -(-size // count)) for size, side, count in zip(shape, area, grid))


def fades(size: int, area: int, count: int) -> np.ndarray:
    """Weights of `count` areas along a line, [count, size] float64 with columns that sum to one.

    A weight falls with the distance to the area's ends: where two areas overlap by up to half a
    side, that is a linear fade from one to the other.

    Example:
      >>> fades(6, 4, 2)[0].tolist()
      [1.0, 1.0, 0.75, 0.25, 0.0, 0.0]
    """
    place = np.arange(area) + 0.5
    weights = np.zeros((count, size))
    for row, corner in zip(weights, corners(size, area, count)):
        row[corner : corner + area] = np.minimum(place, area - place)
    return weights / weights.sum(axis=0)


def area_counts(shape, image_shape, *, patches, grid, area) -> np.ndarray:
    """Pixels of each class area in each patch, [M, cells] float64, cells row by row.

    A pixel where areas overlap counts for each of them.

    Example:
      >>> area_counts((2, 6), (2, 3, 1), patches=(1, 4), grid=(1, 2), area=(2, 3))[1].tolist()
      [4.0, 2.0]
    """
    ys, xs = (
        np.clip(np.minimum.outer(p + side, a + wide) - np.maximum.outer(p, a), 0, None)
        for side, wide, p, a in (
            (side, wide, corners(size, side, n), corners(size, wide, cells))
            for size, side, wide, n, cells in zip(shape, image_shape, area, patches, grid)))
    # Columns of patches outermost, as in `patch_corners`.
    counts = np.einsum("ij,kl->kijl", ys, xs)
    return counts.reshape(len(ys) * len(xs), -1).astype(np.float64)


def label_map_shape(shape: tuple[int, int], cells: int) -> tuple[int, int]:
    """The largest map of at most `cells` labels whose sides are those of the poster, scaled.

    Each side is the exact one, rounded up or down.

    Example:
      >>> label_map_shape((60, 153), 10)
      (2, 5)
    """
    scale = math.sqrt(cells / (shape[0] * shape[1]))
    heights, widths = ({min(cells, max(1, math.floor(scale * s))),
                        min(cells, max(1, math.ceil(scale * s)))} for s in shape)
    fitting = [(h, w) for h in sorted(heights) for w in sorted(widths) if h * w <= cells]
    return max(fitting, key=lambda pair: pair[0] * pair[1])


def label_window(shape, image_shape, map_shape: tuple[int, int]) -> tuple[int, int]:
    """Labels of the map that a patch sees: one at least, else as much of it as of the poster.

    Example:
      >>> label_window((60, 153), (32, 32, 3), (4, 11))
      (2, 2)
    """
    return tuple(max(1, side * cells // size)
                 for side, cells, size in zip(image_shape, map_shape, shape))


def first_label_map(map_shape: tuple[int, int], order: np.ndarray) -> np.ndarray:
    """One-hot labels by class area, [Hl, Wl, K] float32; areas share the map as evenly as they can.

    Args:
      map_shape: (Hl, Wl).
      order: [rows, columns] int, the class of each area.

    Example:
      >>> first_label_map((1, 3), np.array([[1, 0]]))[..., 0].tolist()
      [[0.0, 0.0, 1.0]]
    """
    cells = [np.searchsorted(np.linspace(0, size, n + 1).round()[1:-1], np.arange(size), "right")
             for size, n in zip(map_shape, order.shape)]
    return (order[np.ix_(*cells)][..., None] == np.arange(order.size)).astype(np.float32)
