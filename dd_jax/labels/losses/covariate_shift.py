"""Covariate-shift reweighting: images count by how likely they are where the student is to work.

With q the density of the images that the teacher labels and p that of those that matter,
  w(x) = p(x) / q(x),   loss  w(x) T^2 KL(p_t^T || p_s^T),
whose mean over q is the mean of KL over p. Two estimates of w from features of both:
  domain classifier  logistic regression of "which of the two", w = (n_q / n_p) exp(score)
  least squares      w(x) = <a, phi(x)>, a = (mean_q phi phi^T + ridge I)^-1 mean_p phi, if above 0
`importance` then takes a power (1 is unbiased, less has less variance), a cap, and makes the mean
1.

The cards say nothing of it: from memory, the general method of the sources, not one paper's code.

Source: Shimodaira, Improving predictive inference under covariate shift by weighting the
log-likelihood function, 2000; Bickel et al., Discriminative learning under covariate shift, 2009;
Kanamori, Hido, Sugiyama, A least-squares approach to direct importance estimation, 2009.
"""

from __future__ import annotations

import jax
import numpy as np

from dd_jax.errors import ConfigError, require_above_zero, require_at_least_zero
from dd_jax.labels.losses.record import Entry, above_zero
from dd_jax.labels.losses.terms import soft_term
from dd_jax.labels.losses.told import Weighted

_NEWTON_STEPS = 50


def reweighted(logits: jax.Array, told: Weighted, *, temperature: float = 1.0) -> jax.Array:
    """w T^2 KL(softmax(teacher / T) || softmax(logits / T)), [B].

    Raises:
      ConfigError: a teacher of other classes.

    Example:
      >>> import jax.numpy as jnp
      >>> told = Weighted(jnp.zeros((1, 2)), jnp.array([2.0]))
      >>> reweighted(jnp.ones((1, 2)), told).tolist()
      [0.0]
    """
    return told.weights * soft_term(logits, told.logits, temperature)


def domain_ratio(source: np.ndarray, target: np.ndarray, *, ridge: float = 1e-3) -> np.ndarray:
    """w of each source image by a logistic regression between the two, [N] float64.

    Minimises the mean of log(1 + exp(-+(b + <a, x>))) + ridge / 2 ||a||^2 by Newton's steps, each
    halved until it descends.

    Args:
      source: [N, P] features of the images that are to be weighted.
      target: [M, P] features of images of the kind that matters.
      ridge: of the slope, above 0: without it the regression of two separable sets has no end.

    Returns:
      (N / M) exp(b + <a, x>).

    Raises:
      ConfigError: shapes that do not fit, a ridge that cannot be.

    Example:
      >>> same = np.random.default_rng(0).normal(size=(20, 2))
      >>> domain_ratio(same, same).round(6).tolist()[:2]
      [1.0, 1.0]
    """
    source, target = _checked(source, target, ridge)
    rows = np.concatenate([source, target])
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    side = np.concatenate([-np.ones(len(source)), np.ones(len(target))])
    penalty = np.diag([ridge] * source.shape[1] + [0.0])

    def value(a):
        return np.logaddexp(0.0, -side * (rows @ a)).mean() + 0.5 * a @ penalty @ a

    a = np.zeros(rows.shape[1])
    for _ in range(_NEWTON_STEPS):
        wrong = np.exp(-np.logaddexp(0.0, side * (rows @ a)))
        slope = -(side * wrong) @ rows / len(rows) + penalty @ a
        bend = (rows * (wrong * (1 - wrong))[:, None]).T @ rows / len(rows) + penalty
        step = np.linalg.lstsq(bend, slope, rcond=None)[0]
        size = 1.0
        while size > 1e-6 and value(a - size * step) > value(a):
            size /= 2
        a = a - size * step
        if np.abs(slope).max() < 1e-10:
            break
    return len(source) / len(target) * np.exp(rows[:len(source)] @ a)


def least_squares_ratio(
    source: np.ndarray, target: np.ndarray, *, ridge: float = 1e-3
) -> np.ndarray:
    """w of each source image in closed form, linear in its features and 1, [N] float64, >= 0.

    Args:
      source, target, ridge: as for `domain_ratio`; features may be any, such as kernel values.

    Raises:
      ConfigError: as there.

    Example:
      >>> same = np.random.default_rng(0).normal(size=(20, 2))
      >>> least_squares_ratio(same, same, ridge=1e-9).round(6).tolist()[:2]
      [1.0, 1.0]
    """
    source, target = _checked(source, target, ridge)
    ours, theirs = (np.concatenate([x, np.ones((len(x), 1))], axis=1) for x in (source, target))
    moments = ours.T @ ours / len(ours) + ridge * np.eye(ours.shape[1])
    return np.maximum(ours @ np.linalg.solve(moments, theirs.mean(axis=0)), 0.0)


def importance(ratio: np.ndarray, *, power: float = 1.0, most: float = 10.0) -> np.ndarray:
    """Weights from ratios: a power of them, at most `most` times their mean, of mean 1; float32.

    Args:
      ratio: [N] at least 0.
      power: 1 for p / q itself, 0 for no weights.
      most: cap, in means of ratio^power.

    Raises:
      ConfigError: ratios below 0 or all 0, a power or cap that cannot be.

    Example:
      >>> importance(np.array([1.0, 3.0])).tolist()
      [0.5, 1.5]
    """
    require_at_least_zero("power", power, example=1.0)
    require_above_zero("most", most, why="no image would count", example=10.0)
    ratio = np.asarray(ratio, np.float64)
    good = ratio.ndim == 1 and ratio.size and np.isfinite(ratio).all() and (ratio >= 0).all()
    if not good or not ratio.any():
        raise ConfigError("ratios are to be [N] finite numbers of at least 0, not all 0",
                          fix="pass what domain_ratio or least_squares_ratio gave")
    powered = ratio**power
    capped = np.minimum(powered, most * powered.mean())
    return (capped / capped.mean()).astype(np.float32)


def _checked(source: np.ndarray, target: np.ndarray, ridge: float) -> tuple:
    require_above_zero("ridge", ridge, why="two sets that can be told apart have no finite ratio",
                       example=1e-3)
    source, target = (np.asarray(x, np.float64) for x in (source, target))
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1] or not (
            len(source) and len(target)):
        raise ConfigError(f"features are {list(source.shape)} and {list(target.shape)}, expected "
                          "[N, P] and [M, P]", fix="take both from one network")
    return source, target


ENTRIES = {
    "reweighted": Entry(reweighted, targets="Weighted", options={"temperature": 1.0},
                        checks={"temperature": above_zero("logits are divided by it", 1.0)},
                        source="Shimodaira 2000, covariate shift"),
}
