"""Differentiable Siamese augmentation (DSA) with the published strengths.

Reference: Zhao and Bilen, "Dataset Condensation with Differentiable Siamese Augmentation",
ICML 2021, https://arxiv.org/abs/2102.08259.
"""

from __future__ import annotations

from dd_jax.augment import elements
from dd_jax.augment.checks import check_ratio, check_shape
from dd_jax.augment.compose import compose, identity, one_of
from dd_jax.errors import ConfigError, unknown
from dd_jax.types import Augmentation

STRATEGY = "color_crop_cutout_flip_scale_rotate"
DIGITS_STRATEGY = "color_crop_cutout_scale_rotate"


def dsa(
    shape: tuple[int, int, int],
    *,
    strategy: str = STRATEGY,
    mode: str = "single",
    align_corners: bool = False,
    brightness: float = 1.0,
    saturation: float = 2.0,
    contrast: float = 0.5,
    crop: float = 0.125,
    cutout: float = 0.5,
    scale: float = 1.2,
    rotate: float = 15.0,
) -> Augmentation:
    """Returns differentiable Siamese augmentation.

    Each name of the strategy is one operation; u is uniform in 0..1, fresh for each draw:

      color   x + (u - 0.5) * brightness; then (x - m) * (saturation * u) + m with m the mean
              over channels; then (x - m) * (u + contrast) + m with m the mean of the image
      crop    shift by integers in -r..r with zero fill, r = floor(crop * N + 0.5)
      cutout  a zero rectangle of side floor(cutout * N + 0.5), clipped at the border
      flip    mirror the width with probability 0.5
      scale   sample at (sx X, sy Y), sx and sy uniform in 1/scale..scale, zero fill
      rotate  sample at R(angle) (X, Y), angle uniform in -rotate..rotate degrees, zero fill

    N is H along the rows and W along the columns. Siamese use is the same params for the real
    and the synthetic batch of a class: draw once with count=1 and apply twice. To train or
    evaluate a network draw with count=B: every image has its own parameters, but all images of
    the call share the operation, which is chosen once. The choice is a `lax.switch`: only the
    chosen operation runs, but under `vmap` over draws it becomes a select that runs them all, so
    scan over classes where that matters.

    Args:
      shape: (H, W, C) of the images.
      strategy: operation names joined by "_"; "" or "none" is the identity. Leave out "flip" on
        digits, as in `DIGITS_STRATEGY`.
      mode: "single" draws one operation uniformly, "multiple" applies all in the given order.
      align_corners: the grid convention of rotate, see `ops.rotate`; it changes nothing on
        square images. The released codes of DSA and DM have it False, those of trajectory
        matching True.
      brightness: width of the range of the offset, at least 0; 0 is the identity.
      saturation: top of the range 0..saturation of the factor, at least 0.
      contrast: bottom of the range contrast..contrast + 1 of the factor, at least 0.
      crop: largest shift as a part of the side, 0..1; 0 is the identity.
      cutout: side of the cut as a part of the side, 0..1; 0 is the identity.
      scale: largest factor, at least 1; 1 is the identity.
      rotate: largest angle in degrees, 0..180; 0 is the identity.

    Returns:
      An `Augmentation`; images go in and come out as [B, H, W, C] in model space.

    Raises:
      ConfigError: the shape, a name, the mode or a strength is not one of the above.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> augmentation = dsa((8, 8, 1), strategy="crop_scale")
      >>> params = augmentation.draw(jax.random.key(0), 1)
      >>> real, synthetic = jnp.ones((5, 8, 8, 1)), jnp.ones((2, 8, 8, 1))
      >>> augmentation.apply(params, real).shape, augmentation.apply(params, synthetic).shape
      ((5, 8, 8, 1), (2, 8, 8, 1))
    """
    shape = check_shape(shape)
    brightness = check_ratio("brightness", brightness, low=0.0)
    saturation = check_ratio("saturation", saturation, low=0.0)
    contrast = check_ratio("contrast", contrast, low=0.0)
    table = {
        "color": elements.random_colour(
            shape,
            offset=(-0.5 * brightness, 0.5 * brightness),
            saturation=(0.0, saturation),
            contrast=(contrast, contrast + 1.0),
        ),
        "crop": elements.random_shift(shape, ratio=crop),
        "cutout": elements.random_cutout(shape, ratio=cutout),
        "flip": elements.random_flip(shape),
        "scale": elements.random_scale(shape, ratio=scale),
        "rotate": elements.random_rotation(shape, degrees=rotate, align_corners=align_corners),
    }
    makers = {"single": one_of, "multiple": compose}
    if mode not in makers:
        raise unknown("augmentation mode", mode, makers)
    names = _parse(strategy, table)
    return makers[mode](*(table[name] for name in names)) if names else identity(shape)


def _parse(strategy: str, valid: dict[str, Augmentation]) -> list[str]:
    """The names of a strategy, each known and none twice; empty for "" and "none"."""
    if not isinstance(strategy, str):
        raise ConfigError(
            f"strategy is {strategy!r}, expected names joined by '_'", fix=f"pass {STRATEGY!r}"
        )
    if strategy in ("", "none"):
        return []
    names = strategy.split("_")
    for name in names:
        if name not in valid:
            raise unknown("augmentation operation", name, valid)
        if names.count(name) > 1:
            raise ConfigError(
                f"strategy {strategy!r} names {name!r} twice, expected each name at most once",
                fix="leave out the repetition",
            )
    return names
