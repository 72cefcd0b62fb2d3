"""Random image transformations: pure functions, with the draw apart from the application."""

from __future__ import annotations

from dd_jax.augment.block import crop_flip_roll, random_resized_crop, random_roll
from dd_jax.augment.compose import compose, identity, one_of, one_per_image
from dd_jax.augment.cutmix import cutmix
from dd_jax.augment.dsa import dsa
from dd_jax.augment.frepo import frepo_augmentation, rcig_augmentation
from dd_jax.augment.mixing import Mixing, mixing
from dd_jax.augment.mixup import mixup
from dd_jax.augment.table import by_name
from dd_jax.augment.views import views

__all__ = ["Mixing", "by_name", "compose", "crop_flip_roll", "cutmix", "dsa", "frepo_augmentation",
           "identity", "mixing", "mixup", "one_of", "one_per_image", "random_resized_crop",
           "random_roll",
           "rcig_augmentation", "views"]
