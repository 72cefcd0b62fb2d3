"""HARD: views on which teacher and student disagree, as far as the teacher sees the same image.

An augmenter with parameters phi draws x~ = A_phi(x, noise), here an affine map of learned ranges.
  student    min_theta  D(t(x~), s(x~))
  augmenter  max_phi    lambda_s D(t(x~), s(x~)) - lambda_t D(t(x), t(x~))
Its form without parameters: of m random views the one of largest D(t(x~), s(x~)) among those of
D(t(x), t(x~)) <= limit. `labels.rules` trains by both; no function
of one batch's outputs, it is not in the table of losses.

Differs from the paper, whose code was not found and whose distances and weights its card does not
tell: D is T^2 KL(t || s), both weights are 1 by default, and the learned ranges are bounded, so
that a weight too small cannot turn the image away. The augmenter from a pretrained generator is
not here.

Source: Nix et al., HARD: Hard Augmentations for Robust Distillation, 2023.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_at_least_zero
from dd_jax.labels.losses.terms import soft_term
from dd_jax.nets.extended import Extra
from dd_jax.types import Outputs

# Rotation in radians; shear; log of the scale; shifts in shares of half a side.
LIMITS = (0.6, 0.4, 0.4, 0.5, 0.5)


def affine_ranges(*, share: float = 0.1) -> Extra:
    """The augmenter beside a student: parameters [5], raw ranges of the affine map.

    Args:
      share: of `LIMITS`, between 0 and 1, that its ranges start with.

    Raises:
      ConfigError: another share.

    Example:
      >>> jax.nn.sigmoid(affine_ranges(share=0.25).init(jax.random.key(0))["raw"]).tolist()
      [0.25, 0.25, 0.25, 0.25, 0.25]
    """
    if not (isinstance(share, float) and 0.0 < share < 1.0):
        raise ConfigError(f"share is {share!r}, expected a number between 0 and 1",
                          fix="pass share=0.1")
    start = math.log(share / (1.0 - share))

    def init(key: jax.Array) -> dict[str, jax.Array]:
        return {"raw": jnp.full((len(LIMITS),), start, jnp.float32)}

    def apply(params: dict[str, jax.Array], outputs: Outputs) -> tuple:
        return ()

    return Extra(init, apply, "an augmenter")


def affine_views(raw: jax.Array, noise: jax.Array, images: jax.Array) -> jax.Array:
    """Images under a random affine map about their centre; differentiable in `raw`.

    Args:
      raw: [5]; a range is sigmoid(raw) times that of `LIMITS`.
      noise: [B, 5] in -1..1; 0 leaves an image as it is.
      images: [B, H, W, C].

    Returns:
      [B, H, W, C] by bilinear interpolation, 0 outside.

    Example:
      >>> images = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
      >>> jnp.allclose(affine_views(jnp.zeros(5), jnp.zeros((2, 5)), images), images, atol=1e-5)
      Array(True, dtype=bool)
    """
    drawn = noise * jax.nn.sigmoid(raw) * jnp.asarray(LIMITS, raw.dtype)
    return jax.vmap(_affine)(drawn, images)


def _affine(drawn: jax.Array, image: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    angle, shear, log_scale, down, right = drawn
    y, x = jnp.meshgrid(*(jnp.arange(n) - (n - 1) / 2 for n in (height, width)), indexing="ij")
    cos, sin, scale = jnp.cos(angle), jnp.sin(angle), jnp.exp(-log_scale)
    y, x = y - down * height / 2, x - right * width / 2
    rows = scale * (cos * y - sin * x) + (height - 1) / 2
    columns = scale * (sin * y + cos * x + shear * y) + (width - 1) / 2

    def of_channel(channel):
        return jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1)

    return jax.vmap(of_channel, in_axes=-1, out_axes=-1)(image)


def augmenter_loss(
    student: jax.Array, teacher: jax.Array, plain: jax.Array, *, disagree: float = 1.0,
    same: float = 1.0, temperature: float = 1.0,
) -> jax.Array:
    """-(lambda_s D(t(x~), s(x~)) - lambda_t D(t(x), t(x~))), [B], which the augmenter minimises.

    Args:
      student, teacher: [B, K] logits of the views.
      plain: [B, K] logits of the teacher on the images themselves.
      disagree, same: lambda_s and lambda_t.
      temperature: of D.

    Example:
      >>> z = jnp.array([[1.0, 2.0]])
      >>> augmenter_loss(z, z, z).tolist()
      [0.0]
    """
    return (same * soft_term(teacher, plain, temperature)
            - disagree * soft_term(student, teacher, temperature))


def hardest_view(
    student: jax.Array, teacher: jax.Array, plain: jax.Array, *, limit: float,
    temperature: float = 1.0,
) -> jax.Array:
    """Which of m views is the hardest that the teacher sees as the same image, [B] int32.

    Where the teacher sees none as the same, it is the one that it sees as most nearly so.

    Args:
      student, teacher: [m, B, K] logits of the views.
      plain: [B, K] logits of the teacher on the images themselves.
      limit: the largest D(t(x), t(x~)).
      temperature: of D.

    Raises:
      ConfigError: a limit below 0, other classes.

    Example:
      >>> plain = jnp.array([[0.0, 0.0]])
      >>> teacher = jnp.array([[[0.0, 0.0]], [[0.1, 0.0]], [[9.0, 0.0]]])
      >>> hardest_view(jnp.zeros((3, 1, 2)), teacher, plain, limit=0.1).tolist()
      [1]
    """
    require_at_least_zero("limit", limit)
    away = soft_term(teacher, jnp.broadcast_to(plain, teacher.shape), temperature)
    hard = soft_term(student, teacher, temperature)
    allowed = away <= limit
    best = jnp.argmax(jnp.where(allowed, hard, -jnp.inf), axis=0)
    return jnp.where(allowed.any(axis=0), best, jnp.argmin(away, axis=0)).astype(jnp.int32)
