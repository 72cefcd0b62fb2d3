"""The augmentations under which FRePo and RCIG evaluate their distilled sets.

References: Zhou, Nezhadarya and Ba, "Dataset Distillation using Neural Feature Regression",
NeurIPS 2022; Loo, Hasani, Lechner and Rus, "Dataset Distillation with Convexified Implicit
Gradients", ICML 2023.

Differs from the official codes, which have square images only: where sides differ, the cutout has a
quarter of each, and the rotation is that of `ops.rotate`, which shears.
"""

from __future__ import annotations

from dd_jax.augment import elements
from dd_jax.augment.checks import check_shape
from dd_jax.augment.compose import one_of, one_per_image
from dd_jax.types import Augmentation

COLOUR = 0.25
ZOOM = 1.25
DEGREES = 15.0
TRANSLATE = 0.125
CUTOUT = 4


def frepo_augmentation(shape: tuple[int, int, int], *, flip: bool = True) -> Augmentation:
    """Returns FRePo's evaluation augmentation: one operation for a batch, drawn uniformly.

      colour     x + b; then (x - m) c + m with m the mean of the image; then (x - m) s + m with m
                 the mean over channels; b, log c and log s are uniform in -0.25..0.25
      zoom       a resized crop: log-uniform in 0.8..1.25, its window placed uniformly
      rotate     within 15 degrees
      translate  by any number of pixels, up to an eighth of the side
      cutout     a zero square of a quarter of the side, inside the image
      flip       mirror the width with probability 0.5

    Outside the image its border goes on. Draw with count=B for parameters per image, as the
    protocol has it; all images of the call share the operation. The choice is a `lax.switch`: only
    the chosen operation runs, but under `vmap` over draws all of them do.

    Args:
      shape: (H, W, C) of the images.
      flip: whether the mirror is among the operations; False for MNIST and Fashion-MNIST.

    Returns:
      An `Augmentation`; images go in and come out as [B, H, W, C] in model space.

    Raises:
      ConfigError: `shape` is not three integers of at least 1.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> augmentation = frepo_augmentation((8, 8, 3), flip=False)
      >>> params = augmentation.draw(jax.random.key(0), 4)
      >>> augmentation.apply(params, jnp.ones((4, 8, 8, 3))).shape
      (4, 8, 8, 3)
    """
    return one_of(*_operations(shape, colour=True, flip=flip))


def rcig_augmentation(
    shape: tuple[int, int, int], *, colour: bool = True, flip: bool = True
) -> Augmentation:
    """Returns RCIG's evaluation augmentation: FRePo's operations, one drawn for each image.

    Args:
      shape: (H, W, C) of the images.
      colour, flip: whether these two are among the operations; neither is for grey images.

    Returns:
      An `Augmentation`; images go in and come out as [B, H, W, C] in model space.

    Raises:
      ConfigError: `shape` is not three integers of at least 1.

    Example:
      >>> import jax
      >>> choice, _ = rcig_augmentation((8, 8, 1)).draw(jax.random.key(0), 64)
      >>> len(set(choice.tolist()))
      6
    """
    return one_per_image(*_operations(shape, colour=colour, flip=flip))


def _operations(shape: tuple[int, int, int], *, colour: bool, flip: bool) -> list[Augmentation]:
    shape = check_shape(shape)
    always = [
        elements.random_zoom(shape, ratio=ZOOM, edge=True),
        elements.random_rotation(shape, degrees=DEGREES, edge=True),
        elements.random_translation(shape, ratio=TRANSLATE, edge=True),
        elements.random_inner_cutout(shape, part=CUTOUT),
    ]
    first = [elements.random_jitter(shape, offset=COLOUR, factor=COLOUR)] if colour else []
    return [*first, *always, *([elements.random_flip(shape)] if flip else [])]
