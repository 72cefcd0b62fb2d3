"""The arc-cosine step: what a rectifier does to a covariance K and a tangent kernel Theta.

With variances q1, q2, rho = K / sqrt(q1 q2), theta = arccos(rho) and kdot = (pi - theta) / (2 pi),
  K' = sqrt(q1 q2) sin(theta) / (2 pi) + kdot K,    Theta' = kdot Theta.
Derivatives in closed form (q1 = s1^2, sin = sin(theta)):
  dK'/dK = kdot, dK'/ds1 = s2 sin / (2 pi); dkdot/dK = 1 / (2 pi sin s1 s2),
  dkdot/ds1 = -rho / (2 pi sin s1); symmetric in s2.
K' is smooth; kdot has a cusp where two patches are collinear (theta = 0: constant backgrounds, zero
padding, duplicates). There the derivative of theta is taken as zero, the mean of its two sides.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TWO_PI = 2 * np.pi

# Minimax fits in z = |rho| on [0, 1]; the errors are absolute, of kdot and of K' / sqrt(q1 q2):
#   arccos(z) / (2 pi) = sqrt(1 - z) * P(z)                               to 1.4e-8,
#   (sqrt(1 - z^2) - z arccos(z)) / (2 pi) = (1 - z)^(3/2) * Q(z)         to 4.0e-9.
ANGLE = (0.24999998600525425, -0.034153232559060276, 0.014138670834932166, -0.007830017160339996,
         0.0044186083934054385, -0.001910402708293695, 0.0004156692615120652)  # fmt: skip
BULGE = (0.15915493910175127, -0.011267123150955113, 0.002984646446353498, -0.001177923532784263,
         0.0004692447730435671, -0.00011181610523163825)  # fmt: skip


class Scale(NamedTuple):
    """The square root s of a variance and its reciprocal r, zero where the variance is zero.

    Derivatives are counted on `root` alone; `reciprocal` is its dependant.
    """

    root: jax.Array
    reciprocal: jax.Array


def scale_of(variance: jax.Array) -> Scale:
    """`Scale` of a variance [...] >= 0; the derivative at zero is zero."""
    positive = variance > 0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    reciprocal = jnp.where(positive, 1 / jnp.where(positive, root, 1), 0)
    return Scale(root, jax.lax.stop_gradient(reciprocal))


def rectify(cov, tangent, scale1: Scale, scale2: Scale, same=None):
    """One rectifier.

    Args:
      cov: K [...], covariances before it.
      tangent: Theta [...], or None where it is not wanted or still zero.
      scale1: of q1, broadcastable to K.
      scale2: of q2, broadcastable to K.
      same: bool, broadcastable to K: entries that are variances themselves (theta = 0 exactly);
        None where there are none.

    Returns:
      (K', Theta') of the shapes and dtype of `cov` and `tangent`.

    Example:
      >>> one = scale_of(jnp.ones(()))
      >>> [round(float(v), 4) for v in rectify(jnp.zeros(()), jnp.ones(()), one, one)]
      [0.1592, 0.25]
    """
    return _rectify(cov, tangent, scale1, scale2, same)


def _horner(coefficients, z):
    value = jnp.full_like(z, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * z + c
    return value


def _cosine(cov, scale1, scale2):
    """rho, z = |rho| <= 1 and 1 - z, which is zero where rounding cannot tell it from zero."""
    rho = cov * (scale1.reciprocal * scale2.reciprocal)
    z = jnp.minimum(jnp.abs(rho), 1)
    gap = 1 - z
    return rho, z, jnp.where(gap <= 4 * jnp.finfo(z.dtype).eps, 0, gap)


def _kdot(rho, z, gap, same):
    if z.dtype == jnp.float32:
        turn = jnp.sqrt(gap) * _horner(ANGLE, z)
    else:
        turn = jnp.arctan2(jnp.sqrt(gap * (1 + z)), z) / TWO_PI
    kdot = jnp.where(rho > 0, 0.5 - turn, turn)
    return kdot if same is None else jnp.where(same, 0.5, kdot)


def _covariance(cov, scale1, scale2, same):
    _, z, gap = _cosine(cov, scale1, scale2)
    if z.dtype == jnp.float32:
        bulge = gap * jnp.sqrt(gap) * _horner(BULGE, z)
    else:
        sine = jnp.sqrt(gap * (1 + z))
        bulge = (sine - z * jnp.arctan2(sine, z)) / TWO_PI
    new = scale1.root * scale2.root * bulge + 0.5 * jnp.maximum(cov, 0)
    return new if same is None else jnp.where(same, 0.5 * cov, new)


@jax.custom_vjp
def _rectify(cov, tangent, scale1, scale2, same):
    new = _covariance(cov, scale1, scale2, same)
    if tangent is None:
        return new, None
    return new, tangent * _kdot(*_cosine(cov, scale1, scale2), same)


def _forward(cov, tangent, scale1, scale2, same):
    return _rectify(cov, tangent, scale1, scale2, same), (cov, tangent, scale1, scale2, same)


def _slopes(saved, bars):
    """t, the cotangent of rho through kdot, and u, that of log s1 (and of log s2)."""
    cov, tangent, scale1, scale2, same = saved
    cov_bar, tangent_bar = bars
    rho, z, gap = _cosine(cov, scale1, scale2)
    if same is not None:
        gap = jnp.where(same, 0, gap)
    sine = jnp.sqrt(gap * (1 + z))
    u = cov_bar * (scale1.root * scale2.root) * sine / TWO_PI
    if tangent is None:
        return None, u
    singular = gap <= 0
    t = tangent_bar * tangent / jnp.where(singular, 1, sine * TWO_PI)
    t = jnp.where(singular, 0, t)
    return t, u - t * rho


def _backward(saved, bars):
    cov, tangent, scale1, scale2, same = saved
    cov_bar, tangent_bar = bars
    kdot = _kdot(*_cosine(cov, scale1, scale2), same)
    t, u = _slopes(saved, bars)
    new_cov_bar = cov_bar * kdot
    new_tangent_bar = None
    if tangent is not None:
        new_cov_bar = new_cov_bar + t * (scale1.reciprocal * scale2.reciprocal)
        new_tangent_bar = tangent_bar * kdot
    return new_cov_bar, new_tangent_bar, _bar(u, scale1), _bar(u, scale2), None


def _bar(u, scale: Scale) -> Scale:
    bar = u * scale.reciprocal
    extra = bar.ndim - scale.root.ndim
    axes = tuple(range(extra)) + tuple(
        axis + extra for axis, n in enumerate(scale.root.shape) if n != bar.shape[axis + extra]
    )
    bar = bar.sum(axes, keepdims=True).reshape(scale.root.shape) if axes else bar
    return Scale(bar, jnp.zeros_like(scale.reciprocal))


_rectify.defvjp(_forward, _backward)
