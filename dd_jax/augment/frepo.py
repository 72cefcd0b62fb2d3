"""The augmentation under which FRePo evaluates its distilled sets.

Reference: Zhou, Nezhadarya and Ba, "Dataset Distillation using Neural Feature Regression",
NeurIPS 2022, https://arxiv.org/abs/2206.00719.

Differs from the official code (it fixes the operations and their ranges; what follows is our
reading where those leave room):
  - colour jitter adds U(-0.25, 0.25) to the pixels in model space, then scales saturation and
    then contrast by U(0.75, 1.25); hue is left alone, because it has no meaning on whitened or
    one-channel images;
  - the zoom of the resized crop is log-uniform in 0.8..1.25, keeps the aspect ratio, and its
    window is placed uniformly, with zeros where it leaves the image;
  - translation is by whole pixels, and every fill is zero, which is the mean in model space;
  - the side of the cutout is floor(N / 4 + 0.5) and it is clipped at the border.
"""

from __future__ import annotations

from dd_jax.augment import elements
from dd_jax.augment.checks import check_shape
from dd_jax.augment.compose import one_of
from dd_jax.types import Augmentation

COLOUR = 0.25
ZOOM = 1.25
DEGREES = 15.0
TRANSLATE = 0.125
CUTOUT = 0.25


def frepo_augmentation(shape: tuple[int, int, int], *, flip: bool = True) -> Augmentation:
    """Returns FRePo's evaluation augmentation: one operation for a batch, drawn uniformly.

    The operations are flip with probability 0.5, colour jitter of 0.25, resized crop with zoom
    0.8..1.25, rotation within 15 degrees, translation of up to N/8 and a cutout of side N/4.
    Draw with count=B for parameters per image, as the protocol has it; all images of the call
    share the operation. The choice is a `lax.switch`: only the chosen operation runs, but under
    `vmap` over draws all of them do.

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
    shape = check_shape(shape)
    jitter = (1.0 - COLOUR, 1.0 + COLOUR)
    members = [
        elements.random_colour(shape, offset=(-COLOUR, COLOUR), saturation=jitter, contrast=jitter),
        elements.random_zoom(shape, ratio=ZOOM),
        elements.random_rotation(shape, degrees=DEGREES),
        elements.random_shift(shape, ratio=TRANSLATE),
        elements.random_cutout(shape, ratio=CUTOUT),
    ]
    if flip:
        members.append(elements.random_flip(shape))
    return one_of(*members)
