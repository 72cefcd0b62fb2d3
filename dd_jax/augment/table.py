"""The augmentations that a setting can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dd_jax.augment.block import crop_flip_roll
from dd_jax.augment.compose import identity
from dd_jax.augment.dsa import DIGITS_STRATEGY, dsa
from dd_jax.augment.frepo import frepo_augmentation, rcig_augmentation
from dd_jax.augment.idc import idc_evaluation, idc_matching, idc_training
from dd_jax.errors import unknown
from dd_jax.types import Augmentation

AUGMENTATIONS: Mapping[str, Callable[[tuple[int, int, int]], Augmentation]] = {
    "none": identity,
    "dsa": dsa,
    "dsa_digits": lambda shape: dsa(shape, strategy=DIGITS_STRATEGY),
    "flip_rotate": lambda shape: dsa(shape, strategy="flip_rotate"),
    "rotate": lambda shape: dsa(shape, strategy="rotate"),
    "frepo": frepo_augmentation,
    "frepo_digits": lambda shape: frepo_augmentation(shape, flip=False),
    "rcig": rcig_augmentation,
    "rcig_digits": lambda shape: rcig_augmentation(shape, colour=False, flip=False),
    "idc": idc_evaluation,
    "idc_digits": lambda shape: idc_evaluation(shape, flip=False),
    "idc_matching": idc_matching,
    "idc_training": idc_training,
    "inception": crop_flip_roll,
    "inception_digits": lambda shape: crop_flip_roll(shape, flip=False),
}
# What may mirror images, and the same for images that must not be, such as digits.
WITHOUT_FLIP: Mapping[str, str] = {"dsa": "dsa_digits", "frepo": "frepo_digits",
                                   "idc": "idc_digits", "inception": "inception_digits"}


def by_name(name: str, shape: tuple[int, int, int]) -> Augmentation:
    """Builds the augmentation of that name for images of that shape.

    Args:
      name: one of `AUGMENTATIONS`; those that end in "_digits" have no flip.
      shape: (H, W, C) of the images.

    Returns:
      An `Augmentation` with the published strengths.

    Raises:
      ConfigError: the name is not in the table, or `shape` is not three integers of at least 1.

    Example:
      >>> by_name("dsaa", (8, 8, 1))
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: unknown augmentation 'dsaa'; did you mean 'dsa'?
    """
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name](shape)
