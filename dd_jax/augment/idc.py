"""The augmentations of IDC, made of DSA's operations at their published strengths.

Source: Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022.
"""

from __future__ import annotations

from dd_jax.augment.compose import compose
from dd_jax.augment.dsa import dsa
from dd_jax.types import Augmentation


def idc_matching(shape: tuple[int, int, int]) -> Augmentation:
    """Colour, crop and cutout, all of them: for the real and synthetic images of a class."""
    return dsa(shape, strategy="color_crop_cutout", mode="multiple")


def idc_training(shape: tuple[int, int, int]) -> Augmentation:
    """Colour and crop: for networks trained during the distillation, beside CutMix."""
    return dsa(shape, strategy="color_crop", mode="multiple")


def idc_evaluation(shape: tuple[int, int, int], *, flip: bool = True) -> Augmentation:
    """Colour, a mirror, and one of crop, scale and rotate: for networks that test a set.

    Args:
      shape: (H, W, C) of the images.
      flip: False leaves the mirror out, for digits.

    Returns:
      An `Augmentation`.

    Example:
      >>> import jax
      >>> len(idc_evaluation((8, 8, 1)).draw(jax.random.key(0), 1))
      2
    """
    always = "color_flip" if flip else "color"
    return compose(dsa(shape, strategy=always, mode="multiple"),
                   dsa(shape, strategy="crop_scale_rotate"))
