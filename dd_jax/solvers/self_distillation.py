"""Self-distillation of kernel ridge regression with a share of the ground truth, in closed form.

Step 1 fits y, step k fits a_k y + (1 - a_k) f_{k-1}, each with the same kernel and ridge. In the
eigenbasis of K = U S U^T a fit multiplies coefficients by d = S / (S + lam), so with y~ = U^T y and
f_k = U (c_k y~) on the training rows

  c_1 = d,  c_k = d (a_k + (1 - a_k) c_{k-1}),
  for one a:  c_k = a d (1 - r^{k-1}) / (1 - r) + r^{k-1} d,  r = (1 - a) d.

a = 0 is d^k, which shrinks ever more; for a > 0 the limit is a S / (a S + lam), one ridge
regression with lam / a. On validation rows f_k is linear in a_k, so the a_k of least squared error
is closed, too; it is taken step after step, given those before it.

Source: Borup, Andersen, Even your Teacher Needs Guidance: Ground-Truth Targets Dampen
Regularization Imposed by Self-Distillation, NeurIPS 2021.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import require_above_zero, require_probability, require_whole
from dd_jax.solvers.system import check_matrix, times, wide_dtype, widened


class SelfDistilled(NamedTuple):
    """The last step of a self-distillation.

    Attributes:
      alpha: [n, K], so that predictions are K_t alpha, K_t [n_t, n].
      fitted: [n, K], f_k on the training rows.
      shrinkage: [n], c_k, by which the coefficients of y are multiplied, by growing eigenvalue.
    """

    alpha: jax.Array
    fitted: jax.Array
    shrinkage: jax.Array


class BestShares(NamedTuple):
    """The shares a_k of the ground truth that validation rows chose.

    Attributes:
      shares: [k], the first is 1: step 1 has nothing else.
      errors: [k], mean squared error on the validation rows after each step.
      alpha: [n, K] of the last step.
    """

    shares: jax.Array
    errors: jax.Array
    alpha: jax.Array


def self_distilled(
    gram: jax.Array, targets: jax.Array, *, steps: int, share: float, ridge: float
) -> SelfDistilled:
    """Step k of self-distillation with one share a of the ground truth, see the module.

    Args:
      gram: K, [n, n], positive semi-definite up to rounding; its symmetric part counts.
      targets: y, [n, K].
      steps: k, at least 1; 1 is kernel ridge regression.
      share: a in 0..1.
      ridge: lam, absolute, above 0.

    Returns:
      `SelfDistilled` in the dtype of the targets, computed in float64 where there is any.

    Raises:
      ConfigError: a number that cannot be, shapes that do not fit.

    Example:
      >>> self_distilled(jnp.eye(2), jnp.eye(2), steps=2, share=0.0, ridge=1.0).fitted.tolist()
      [[0.25, 0.0], [0.0, 0.25]]
    """
    _check(gram, targets, steps, ridge)
    require_probability("share", share)
    with widened():
        values, vectors, kept = _spectrum(gram, ridge)
        left = (1.0 - share) * kept
        # 1 - r = (lam + a S) / (S + lam), which is above 0: no step divides by nothing.
        rest = (ridge + share * values) / (values + ridge)
        before = share * (1.0 - left ** (steps - 1)) / rest + left ** (steps - 1)
        coefficients = times(vectors.T, targets.astype(vectors.dtype))
        alpha = times(vectors, (before / (values + ridge))[:, None] * coefficients)
        fitted = times(vectors, (kept * before)[:, None] * coefficients)
        return SelfDistilled(*(x.astype(targets.dtype) for x in (alpha, fitted, kept * before)))


def best_shares(
    gram: jax.Array, targets: jax.Array, cross: jax.Array, validation: jax.Array, *, steps: int,
    ridge: float,
) -> BestShares:
    """The share of the ground truth in each step that fits validation rows best.

    With A = (K + lam I)^{-1} and D = K_v A (y - f_{k-1}), v the validation targets,
      a_k = <v - K_v A f_{k-1}, D> / <D, D>,  cut to 0..1;  1 where D is zero.

    Args:
      gram: K, [n, n].
      targets: y, [n, K].
      cross: K_v, [m, n], of validation rows with training rows.
      validation: v, [m, K].
      steps: k, at least 1.
      ridge: lam, absolute, above 0.

    Returns:
      `BestShares` in the dtype of the targets.

    Raises:
      ConfigError: a number that cannot be, shapes that do not fit.

    Example:
      >>> best = best_shares(jnp.eye(2), jnp.eye(2), jnp.eye(2), 0.3125 * jnp.eye(2), steps=2,
      ...                    ridge=1.0)
      >>> best.shares.tolist()
      [1.0, 0.25]
    """
    _check(gram, targets, steps, ridge)
    check_matrix("cross", cross)
    check_matrix("cross transposed", cross.T, rows=gram.shape[0])
    check_matrix("validation", validation, rows=cross.shape[0])
    check_matrix("validation transposed", validation.T, rows=targets.shape[1])
    with widened():
        values, vectors, _ = _spectrum(gram, ridge)
        y, v, k_v = (x.astype(vectors.dtype) for x in (targets, validation, cross))

        def fit(told):
            by = 1.0 / (values + ridge)
            return times(vectors, by[:, None] * times(vectors.T, told))

        alpha = fit(y)
        shares, errors = [jnp.ones((), y.dtype)], [_error(k_v, alpha, v)]
        for _ in range(steps - 1):
            fitted = times(vectors, values[:, None] * times(vectors.T, alpha))
            by_itself = fit(fitted)
            change = times(k_v, fit(y) - by_itself)
            size = jnp.sum(change**2)
            share = jnp.sum((v - times(k_v, by_itself)) * change) / jnp.where(size > 0, size, 1.0)
            share = jnp.where(size > 0, jnp.clip(share, 0.0, 1.0), 1.0)
            alpha = by_itself + share * fit(y - fitted)
            shares.append(share)
            errors.append(_error(k_v, alpha, v))
        return BestShares(*(x.astype(targets.dtype)
                            for x in (jnp.stack(shares), jnp.stack(errors), alpha)))


def _spectrum(gram: jax.Array, ridge: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(eigenvalues [n] at least 0, eigenvectors [n, n], what one fit keeps [n])."""
    gram = gram.astype(wide_dtype())
    values, vectors = jnp.linalg.eigh(0.5 * (gram + gram.T))
    values = jnp.maximum(values, 0.0)
    return values, vectors, values / (values + ridge)


def _error(cross: jax.Array, alpha: jax.Array, wanted: jax.Array) -> jax.Array:
    return jnp.mean((times(cross, alpha) - wanted) ** 2)


def _check(gram: jax.Array, targets: jax.Array, steps: int, ridge: float) -> None:
    require_whole("steps", steps, example=3)
    require_above_zero("ridge", ridge, why="without one a step changes nothing", example=1e-2)
    check_matrix("gram", gram, square=True)
    check_matrix("targets", targets, rows=gram.shape[0])
