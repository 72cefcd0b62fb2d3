"""Every image operation under one name: pure functions of a batch and per-image parameters."""

from __future__ import annotations

from dd_jax.augment.ops_colour import brightness, contrast, saturation
from dd_jax.augment.ops_grid import cutout, flip, shift
from dd_jax.augment.ops_sampling import affine, rotate, scale, translate, zoom

__all__ = [
    "affine",
    "brightness",
    "contrast",
    "cutout",
    "flip",
    "rotate",
    "saturation",
    "scale",
    "shift",
    "translate",
    "zoom",
]
