"""All images of a set as overlapping patches of one picture: less than an image per class will do.

  image[m] = P[y_m : y_m + h, x_m : x_m + w],   m over columns of patches, then down each column

The corners are static. Where patches overlap, the derivatives of their pixels add up.

Labels go by place. "fixed" ones count the pixels of each class's area in the patch, and cost
nothing; "learned" ones are sums over windows of a small map of labels, normalised to one:

  label[m] = sum(L over its window) / sum(all of it),   L [Hl, Wl, K] at least 0

Source: Shul, Horwitz and Hoshen, Distilling Datasets Into Less Than One Image, 2024.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import Normaliser, denormalise
from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.synthetic import poster_layout as layout
from dd_jax.synthetic.class_order import check_grid, two_sizes
from dd_jax.synthetic.pixels import pixels
from dd_jax.types import Parameterization, SyntheticSet

POSTER_LABELS = ("fixed", "learned")
_TINY = 1e-12


def poster(
    *,
    shape: tuple[int, int],
    image_shape: tuple[int, int, int],
    patches: tuple[int, int],
    class_grid: tuple[int, int],
    order: Any = None,
    area: tuple[int, int] | None = None,
    labels: str = "fixed",
    fractions: bool = False,
    label_ipc: int = 1,
    unit_variance: bool = False,
) -> Parameterization:
    """One poster P [H, W, C] of model-space values, shown as `patches` overlapping images.

    Its start is officially random: for each class a mean of standard normal values and noise of
    standard deviation d / 4 around it, d the smallest distance of two means, together scaled to
    norm one; these areas lie on the grid, fading linearly into each other where they overlap. Of
    the start that is given only learning rate and temperature are used; its images and labels must
    be of the right size.

    The set is not class-major, and its labels are probabilities. Learned ones need an optimizer
    that keeps the map at 0 or above, such as one that ends in `kept_between(0.0, jnp.inf)`.

    Args:
      shape: (H, W), see `poster_shape`.
      image_shape: (h, w, C) of an image.
      patches: (vertical, horizontal), at least as many as cover the poster and at most as many as
        there are places; see `patch_counts`.
      class_grid: (rows, columns) of class areas, together K.
      order: [rows, columns], the class of each area, see `class_order`; None: row by row.
      area: (height, width) of a class area; None: an image's. Areas that would leave pixels
        between them are enlarged.
      labels: "fixed" or "learned".
      fractions: fixed labels are shares of the pixel counts; officially, and here by default, they
        are the softmax of the counts themselves, which is nearly one-hot.
      label_ipc: a learned map has at most K * label_ipc labels.
      unit_variance: areas start with norm sqrt(h w C), a variance of one for each pixel, as
        standardised images have; it is the start's and not recorded.

    Returns:
      A `Parameterization` whose params are {"poster": [H, W, C]} in group "images" and, where
      learned, {"label_map": [Hl, Wl, K]} in group "labels", with those of rate and temperature.

    Raises:
      ConfigError: sizes that do not fit each other, a wrong order, unknown labels; at `init`,
        images or labels of another size.

    Example:
      >>> head = poster(shape=(4, 6), image_shape=(4, 4, 1), patches=(1, 3), class_grid=(1, 2))
      >>> start = SyntheticSet(jnp.zeros((2, 4, 4, 1)), jnp.eye(2))
      >>> params = head.init(jax.random.key(0), start)
      >>> head.decode(params, jax.random.key(1)).images.shape
      (3, 4, 4, 1)
    """
    shape, image_shape, grid, patches, area = _checked_sizes(
        shape, image_shape, class_grid, patches, area)
    order = _checked_order(order, grid)
    if labels not in POSTER_LABELS:
        raise unknown("kind of poster labels", labels, POSTER_LABELS)
    require_whole("label_ipc", label_ipc)
    head = pixels(labels=labels)
    map_shape = layout.label_map_shape(shape, order.size * label_ipc)
    window = layout.label_window(shape, image_shape, map_shape)

    def init(key: jax.Array, start: SyntheticSet) -> dict:
        found = (tuple(start.images.shape[1:]), start.labels.shape[-1])
        if found != (image_shape, order.size):
            raise ConfigError(
                f"the start has images of {found[0]} and {found[1]} classes, the poster "
                f"{image_shape} and {order.size}", fix="make the poster for the data of the start")
        areas = _gaussian_areas(key, order.size, (*area, image_shape[2]), start.images.dtype)
        if unit_variance:
            areas = areas * math.sqrt(math.prod(areas.shape[1:]))
        params = {"poster": _blended(areas[order.reshape(-1)], shape, grid)}
        if labels == "learned":
            params["label_map"] = jnp.asarray(layout.first_label_map(map_shape, order),
                                              start.images.dtype)
        return {**params, **_rest(head.init(key, start), ("images", "labels"))}

    def decode(params: dict, key: jax.Array) -> SyntheticSet:
        stored = params["poster"]
        if stored.shape != (*shape, image_shape[2]):
            raise ConfigError(f"the poster has shape {stored.shape}, expected "
                              f"{(*shape, image_shape[2])}", fix="decode with its own settings")
        images = _windows(stored, image_shape[:2], patches)
        if labels == "learned":
            targets = _patch_labels(_windows(params["label_map"], window, patches))
        else:
            targets = jnp.asarray(fixed_labels(), stored.dtype)
        rest = _rest(params, ("poster", "label_map"))
        return head.decode({**rest, "images": images, "labels": targets}, key)

    def fixed_labels() -> np.ndarray:
        counts = layout.area_counts(shape, image_shape, patches=patches, grid=grid, area=area)
        by_class = np.zeros_like(counts)
        by_class[:, order.reshape(-1)] = counts
        if not fractions:
            by_class = np.exp(by_class - by_class.max(axis=1, keepdims=True))
        return by_class / by_class.sum(axis=1, keepdims=True)

    def groups(params: dict) -> dict:
        own = {"poster": "images", "label_map": "labels"}
        rest = _rest(params, own)
        return {**head.groups(rest), **{name: own[name] for name in params if name in own}}

    record = dict(shape=shape, image_shape=image_shape, patches=patches, class_grid=grid,
                  order=order.tolist(), area=area, labels=labels, fractions=fractions,
                  label_ipc=label_ipc)
    return Parameterization(init=init, decode=decode, groups=groups,
                            record=("poster", record))


def poster_image(images: Any, normaliser: Normaliser, *, shape: tuple[int, int],
                 patches: tuple[int, int]) -> np.ndarray:
    """The poster for the eye, put together again from the images of its set.

    Each image is brought back from model space by itself, which whitening asks for, and where
    images overlap their mean is shown: the poster itself where they agree. Pixels of no image are
    grey. Where the normaliser works per image, brightness and contrast are lost, and the whole is
    stretched to fill [0, 1].

    Args:
      images: [M, h, w, C] in model space, in the order of the set.
      normaliser: of the run.
      shape, patches: of the poster.

    Returns:
      [H, W, C] float32 in [0, 1].

    Raises:
      ConfigError: images that are not those of such a poster.

    Example:
      >>> from dd_jax.data import identity
      >>> images = np.stack([np.zeros((2, 2, 1)), np.ones((2, 2, 1))]).astype(np.float32)
      >>> poster_image(images, identity((2, 2, 1)), shape=(2, 3), patches=(1, 2))[0, :, 0].tolist()
      [0.0, 0.5, 1.0]
    """
    counts = two_sizes("patches", patches, example=(6, 16))
    if np.ndim(images) != 4 or len(images) != counts[0] * counts[1]:
        raise ConfigError(f"images have shape {np.shape(images)}, expected those of "
                          f"{counts[0]}x{counts[1]} patches", fix="pass all images of the set")
    shape, (height, width, channels) = layout.check_sizes(shape, tuple(np.shape(images)[1:]))
    unit = np.asarray(denormalise(normaliser, jnp.asarray(images)), np.float64)
    total, times = np.zeros((*shape, channels)), np.zeros((*shape, 1))
    for (y, x), image in zip(layout.patch_corners(shape, (height, width), counts), unit):
        total[y : y + height, x : x + width] += image
        times[y : y + height, x : x + width] += 1
    seen = times[..., 0] > 0
    whole = total / np.maximum(times, 1)
    if normaliser.per_image:
        low, high = whole[seen].min(), whole[seen].max()
        whole = (whole - low) / (high - low) if high > low else np.full_like(whole, 0.5)
    return np.where(seen[..., None], np.clip(whole, 0.0, 1.0), 0.5).astype(np.float32)


def _windows(picture: jax.Array, window: tuple[int, int], counts: tuple[int, int]) -> jax.Array:
    """[M, h, w, C]: slices of [H, W, C] at the static corners; their derivatives add up."""
    # With the channel's index beside them, of one dtype also in float64 programs.
    at = np.pad(layout.patch_corners(picture.shape, window, counts), ((0, 0), (0, 1)))
    size = (*window, picture.shape[2])
    return jax.vmap(lambda corner: jax.lax.dynamic_slice(picture, corner, size))(jnp.asarray(at))


def _patch_labels(windows: jax.Array) -> jax.Array:
    """[M, K] sums over windows [M, h, w, K], scaled to one; uniform where nothing is left."""
    sums = windows.sum(axis=(1, 2))
    total = sums.sum(axis=1, keepdims=True)
    some = total > _TINY
    return jnp.where(some, sums / jnp.where(some, total, 1.0), 1.0 / sums.shape[1])


def _gaussian_areas(key: jax.Array, count: int, shape: tuple[int, ...], dtype) -> jax.Array:
    """[K, h, w, C] of norm one each: noisy class means, apart by four deviations of the noise."""
    mean_key, noise_key = jax.random.split(key)
    means = jax.random.normal(mean_key, (count, int(np.prod(shape))), dtype)
    gram = jnp.matmul(means, means.T, precision="highest")
    squares = jnp.diagonal(gram)
    distances = squares[:, None] + squares - 2 * gram + jnp.where(jnp.eye(count), jnp.inf, 0.0)
    # A single class has no other to be apart from.
    deviation = jnp.sqrt(jnp.maximum(distances.min(), 0.0)) / 4 if count > 1 else 1.0
    areas = means + deviation * jax.random.normal(noise_key, means.shape, dtype)
    areas = areas / jnp.linalg.norm(areas, axis=1, keepdims=True)
    return areas.reshape(count, *shape)


def _blended(areas: jax.Array, shape: tuple[int, int], grid: tuple[int, int]) -> jax.Array:
    """[H, W, C]: areas [cells, h, w, C] at their places on the grid, faded into each other."""
    areas = areas.reshape(*grid, *areas.shape[1:])

    def placing(size: int, side: int, count: int) -> jax.Array:
        # Placing a line is a product with a few columns of the identity: [cells, side, size]. Made
        # by JAX, so that the shape of a start is known without it.
        at = jnp.asarray(layout.corners(size, side, count))[:, None] + jnp.arange(side)
        fades = jnp.asarray(layout.fades(size, side, count), areas.dtype)
        return (at[..., None] == jnp.arange(size)) * fades[:, None]

    rows, cols = (placing(*line) for line in zip(shape, areas.shape[2:4], grid))
    wide = jnp.einsum("bwx,abhwc->ahxc", cols, areas, precision="highest")
    return jnp.einsum("ahy,ahxc->yxc", rows, wide, precision="highest")


def _checked_sizes(shape, image_shape, class_grid, patches, area):
    shape, image_shape = layout.check_sizes(shape, image_shape)
    grid, patches = check_grid(class_grid), two_sizes("patches", patches, example=(6, 16))
    area = image_shape[:2] if area is None else two_sizes("area", area, example=(32, 32))
    for size, side, count, wide in zip(shape, image_shape, patches, area):
        if count > size - side + 1:
            raise ConfigError(f"patches is {patches}, but a side of {size} pixels has only "
                              f"{size - side + 1} places for images of {side}",
                              fix="take them from patch_counts")
        if count * side < size:
            raise ConfigError(f"patches is {patches}, but {count} images of {side} leave pixels of "
                              f"a side of {size} in none of them", fix="pass at least "
                              f"patches={layout.covering_counts(shape, image_shape)}")
        if wide > size:
            raise ConfigError(f"area is {area}, larger than a side of {size} pixels of the poster",
                              fix="leave area out")
    return shape, image_shape, grid, patches, layout.area_size(shape, area, grid)


def _checked_order(order: Any, grid: tuple[int, int]) -> np.ndarray:
    cells = grid[0] * grid[1]
    if order is None:
        return np.arange(cells).reshape(grid)
    found = np.asarray(order)
    if found.shape != grid or found.dtype.kind not in "iu" or sorted(found.flat) != [*range(cells)]:
        raise ConfigError(f"order is {str(order)[:60]}, expected each class 0 to {cells - 1} once "
                          f"on a grid of {grid[0]}x{grid[1]}",
                          fix="pass class_order(distances, grid=class_grid)")
    return found


def _rest(params: dict, names) -> dict:
    return {name: leaf for name, leaf in params.items() if name not in names}
