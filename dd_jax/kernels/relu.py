"""The arc-cosine step: what a rectifier does to a covariance K and a tangent kernel Theta.

With variances q1, q2, rho = K / sqrt(q1 q2), theta = arccos(rho) and kdot = (pi - theta) / (2 pi),
  K' = sqrt(q1 q2) sin(theta) / (2 pi) + kdot K,    Theta' = kdot Theta.
Derivatives in closed form (q1 = s1^2, sin = sin(theta)):
  dK'/dK = kdot, dK'/dlog s1 = s1 s2 sin / (2 pi); dkdot/dK = 1 / (2 pi sin s1 s2),
  dkdot/dlog s1 = -rho / (2 pi sin); the same for s2.
K' is smooth; kdot has a cusp where two patches are collinear (theta = 0: constant backgrounds, zero
padding, duplicates). There the derivative of theta is taken as zero, the mean of its two sides.
The recurrences of all layers are in `docs/kernels.md`.
"""

from __future__ import annotations

from functools import partial
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
    """The square root s of a variance and its logarithm, both zero where the variance is zero.

    Values are read from `root`, which is a constant for differentiation; derivatives are counted on
    `log`, whose value is not read. So a sum over many pairs needs no division in each of them.
    """

    root: jax.Array
    log: jax.Array


def scale_of(variance: jax.Array) -> Scale:
    """`Scale` of a variance [...] >= 0; the derivative at zero is zero."""
    positive = variance > 0
    safe = jnp.where(positive, variance, 1)
    root = jax.lax.stop_gradient(jnp.where(positive, jnp.sqrt(safe), 0))
    return Scale(root, jnp.where(positive, 0.5 * jnp.log(safe), 0))


def rectify(cov, tangent, scale1: Scale, scale2: Scale, same=None):
    """One rectifier.

    Args:
      cov: K [...], covariances before it.
      tangent: Theta [...], or None where it is not wanted or still zero; the object `cov` itself
        where the two are equal, as after a first layer, which saves a pass over the data.
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
    equal = tangent is cov
    return _rectify(equal, cov, None if equal else tangent, scale1, scale2, same)


def _horner(coefficients, z):
    value = jnp.full_like(z, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * z + c
    return value


class _Angle(NamedTuple):
    """rho, z = |rho|, 1 - z (zero where rounding cannot tell it from zero) and s1 s2."""

    rho: jax.Array
    z: jax.Array
    gap: jax.Array
    size: jax.Array


def _angle(cov, scale1, scale2, same) -> _Angle:
    size = scale1.root * scale2.root
    rho = cov / jnp.where(size > 0, size, 1)
    if same is not None:
        rho = jnp.where(same & (size > 0), 1, rho)
    z = jnp.minimum(jnp.abs(rho), 1)
    gap = 1 - z
    return _Angle(rho, z, jnp.where(gap <= 4 * jnp.finfo(z.dtype).eps, 0, gap), size)


def _kdot(a: _Angle):
    if a.z.dtype == jnp.float32:
        turn = jnp.sqrt(a.gap) * _horner(ANGLE, a.z)
    else:
        turn = jnp.arctan2(jnp.sqrt(a.gap * (1 + a.z)), a.z) / TWO_PI
    return jnp.where(a.rho > 0, 0.5 - turn, turn)


def _covariance(a: _Angle):
    if a.z.dtype == jnp.float32:
        bulge = a.gap * jnp.sqrt(a.gap) * _horner(BULGE, a.z)
    else:
        sine = jnp.sqrt(a.gap * (1 + a.z))
        bulge = (sine - a.z * jnp.arctan2(sine, a.z)) / TWO_PI
    return a.size * (bulge + 0.5 * jnp.maximum(a.rho, 0))


def _tangent(equal: bool, tangent, angle: _Angle):
    return angle.rho * angle.size if equal else tangent


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rectify(equal, cov, tangent, scale1, scale2, same):
    angle = _angle(cov, scale1, scale2, same)
    tangent = _tangent(equal, tangent, angle)
    return _covariance(angle), None if tangent is None else tangent * _kdot(angle)


def _forward(equal, *arrays):
    return _rectify(equal, *arrays), arrays


def _backward(equal, saved, bars):
    cov, tangent, scale1, scale2, same = saved
    cov_bar, tangent_bar = bars
    angle = _angle(cov, scale1, scale2, same)
    tangent = _tangent(equal, tangent, angle)
    kdot, sine = _kdot(angle), jnp.sqrt(angle.gap * (1 + angle.z))
    new_tangent_bar, log_bar = None, cov_bar * angle.size * sine / TWO_PI
    if tangent is not None:
        # The cotangent of rho through kdot: the singular part, zero at the cusp.
        cusp = (sine <= 0) | (angle.size <= 0)
        rho_bar = tangent_bar * tangent / (TWO_PI * jnp.where(cusp, 1, sine))
        rho_bar = jnp.where(cusp, 0, rho_bar)
        log_bar = log_bar - rho_bar * angle.rho
        if equal:
            cov_bar = cov_bar + tangent_bar
        else:
            new_tangent_bar = tangent_bar * kdot
    cov_bar = cov_bar * kdot
    if tangent is not None:
        cov_bar = cov_bar + rho_bar / jnp.where(angle.size > 0, angle.size, 1)
    return cov_bar, new_tangent_bar, _bar(log_bar, scale1), _bar(log_bar, scale2), None


def _bar(bar, scale: Scale) -> Scale:
    """The cotangent of a scale that was broadcast to the shape of `bar`."""
    extra = bar.ndim - scale.log.ndim
    wide = [i + extra for i, n in enumerate(scale.log.shape) if n != bar.shape[i + extra]]
    axes = (*range(extra), *wide)
    bar = bar.sum(axes, keepdims=True).reshape(scale.log.shape) if axes else bar
    return Scale(jnp.zeros_like(scale.root), bar)


_rectify.defvjp(_forward, _backward)
