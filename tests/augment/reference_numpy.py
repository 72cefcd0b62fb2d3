"""Slow float64 references for one image [H, W, C], one pixel at a time, from the formulas alone."""

from __future__ import annotations

import math

import numpy as np


def brightness(image, offset):
    out = np.zeros(image.shape)
    for i, j, c in np.ndindex(*image.shape):
        out[i, j, c] = image[i, j, c] + offset
    return out


def saturation(image, factor):
    out = np.zeros(image.shape)
    channels = image.shape[2]
    for i, j, c in np.ndindex(*image.shape):
        mean = sum(float(image[i, j, k]) for k in range(channels)) / channels
        out[i, j, c] = (image[i, j, c] - mean) * factor + mean
    return out


def contrast(image, factor):
    out = np.zeros(image.shape)
    mean = sum(float(image[at]) for at in np.ndindex(*image.shape)) / image.size
    for at in np.ndindex(*image.shape):
        out[at] = (image[at] - mean) * factor + mean
    return out


def flip(image, flag):
    out = np.zeros(image.shape)
    width = image.shape[1]
    for i, j, c in np.ndindex(*image.shape):
        out[i, j, c] = image[i, width - 1 - j, c] if flag else image[i, j, c]
    return out


def shift(image, rows, cols):
    out = np.zeros(image.shape)
    height, width, _ = image.shape
    for i, j, c in np.ndindex(*image.shape):
        if 0 <= i + rows < height and 0 <= j + cols < width:
            out[i, j, c] = image[i + rows, j + cols, c]
    return out


def cutout(image, row, col, size):
    """Walks over the square and clamps every index to the image, as the published code does."""
    out = np.array(image, dtype=np.float64)
    height, width, _ = image.shape
    for a in range(size[0]):
        for b in range(size[1]):
            i = min(max(row - size[0] // 2 + a, 0), height - 1)
            j = min(max(col - size[1] // 2 + b, 0), width - 1)
            out[i, j, :] = 0.0
    return out


def to_unit(index, length, align_corners):
    """The coordinate in [-1, 1] of a pixel."""
    if align_corners:
        return 2.0 * index / (length - 1) - 1.0 if length > 1 else 0.0
    return (2.0 * index + 1.0) / length - 1.0


def to_pixel(unit, length, align_corners):
    """The inverse of `to_unit`, for any real coordinate."""
    if align_corners:
        return (unit + 1.0) / 2.0 * (length - 1)
    return ((unit + 1.0) * length - 1.0) / 2.0


def bilinear(image, y, x, edge=False):
    """The value at row y and column x, with zeros or the border outside."""
    height, width, channels = image.shape
    if edge:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    value = np.zeros(channels)
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < height and 0 <= j < width:
                value += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return value


def sample(image, where, align_corners, edge=False):
    """Samples at where(X, Y) -> (X', Y'), all coordinates in [-1, 1]."""
    out = np.zeros(image.shape)
    height, width, _ = image.shape
    for i in range(height):
        for j in range(width):
            x, y = where(to_unit(j, width, align_corners), to_unit(i, height, align_corners))
            row = to_pixel(y, height, align_corners)
            col = to_pixel(x, width, align_corners)
            out[i, j] = bilinear(image, row, col, edge)
    return out


def affine(image, matrix, align_corners, edge=False):
    (a, b, c), (d, e, f) = np.asarray(matrix, dtype=np.float64)
    return sample(image, lambda x, y: (a * x + b * y + c, d * x + e * y + f), align_corners, edge)


def rotate(image, angle, align_corners, edge=False):
    cos, sin = math.cos(angle), math.sin(angle)
    return sample(image, lambda x, y: (cos * x - sin * y, sin * x + cos * y), align_corners, edge)


def scale(image, factor_y, factor_x, align_corners=False):
    return sample(image, lambda x, y: (factor_x * x, factor_y * y), align_corners)


def zoom(image, factor, place_y, place_x, align_corners, edge=False):
    """A window of half width 1 / factor whose middle is at place * (1 - 1 / factor)."""
    side = 1.0 / factor
    return sample(
        image,
        lambda x, y: (side * x + place_x * (1 - side), side * y + place_y * (1 - side)),
        align_corners,
        edge,
    )


def translate(image, rows, cols, edge=False):
    out = np.zeros(image.shape)
    for i, j in np.ndindex(*image.shape[:2]):
        out[i, j] = bilinear(image, i + rows, j + cols, edge)
    return out
