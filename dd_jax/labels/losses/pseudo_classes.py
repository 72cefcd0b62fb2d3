"""LELP: each class cut into pseudo-classes along directions of the teacher's features.

Of the features h of class c, centred at mu_c,
  1. what lies in the null space of the output weights, which logits know nothing of,
  2. its S principal directions,
  3. mixed by one random rotation, so that none of them stands out,
  4. divided by the root of their mean variance: v_{c,1}, ..., v_{c,S}.
A teacher then says  q(c, k | x) = p_t(c | x) softmax_k(<v_{c,k}, h - mu_c> / tau),  and a student
of K S outputs learns q by cross-entropy. `nets.extended.fold` gives back K classes.

Differs from the official code, of which there is none that was found: the scale of the projections
and tau are not told, so step 4 and tau = 1 are choices; a rotation that is drawn makes variances
equal on average, not exactly.

Source: Loo et al., Linear Projections of Teacher Embeddings for Few-Class Distillation, 2024.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import ConfigError, DataError, require_above_zero, require_whole
from dd_jax.labels.losses.record import Entry
from dd_jax.labels.losses.terms import hard_term


class PseudoClasses(NamedTuple):
    """Directions of pseudo-classes: `directions` [K, S, P] and `means` [K, P], float32."""

    directions: jax.Array
    means: jax.Array


class PseudoTargets(NamedTuple):
    """What LELP tells a student: `probabilities` [B, K * S], those of one class together."""

    probabilities: jax.Array


def pseudo_classes(
    features: np.ndarray, labels: np.ndarray, output_weights: np.ndarray, *, per_class: int,
    seed: int = 0,
) -> PseudoClasses:
    """Directions of S pseudo-classes of each class, see the module; computed in float64.

    Args:
      features: [N, P] of the teacher on a real set.
      labels: [N] class numbers.
      output_weights: [P, K] of the teacher's last layer.
      per_class: S.
      seed: of the rotations.

    Returns:
      `PseudoClasses`.

    Raises:
      ConfigError: shapes that do not fit, S above the dimension of the null space.
      DataError: a class without images, or whose features spread in fewer than S directions.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> found = pseudo_classes(rng.normal(size=(40, 6)), np.arange(40) % 2,
      ...                        rng.normal(size=(6, 2)), per_class=3)
      >>> found.directions.shape
      (2, 3, 6)
    """
    features, weights = (np.asarray(x, np.float64) for x in (features, output_weights))
    labels = np.asarray(labels)
    _check(features, labels, weights, per_class)
    null = _null_space(weights)
    if per_class > null.shape[1]:
        raise ConfigError(
            f"{per_class} pseudo-classes of each class, expected at most {null.shape[1]}: the "
            "output weights leave no more directions", fix=f"pass per_class={null.shape[1]}")
    rng = np.random.default_rng(seed)
    means, directions = [], []
    for number in range(weights.shape[1]):
        own = features[labels == number]
        if not len(own):
            raise DataError(f"class {number} has no features", fix="give features of all classes")
        means.append(own.mean(axis=0))
        rotation = _rotation(rng, per_class)
        directions.append(_directions((own - means[-1]) @ null, per_class, number, rotation)
                          @ null.T)
    return PseudoClasses(*(jnp.asarray(np.stack(x), jnp.float32) for x in (directions, means)))


def pseudo_probabilities(
    pseudo: PseudoClasses, logits: jax.Array, features: jax.Array, *, temperature: float = 1.0,
    tau: float = 1.0,
) -> jax.Array:
    """q(c, k | x), [B, K * S], the pseudo-classes of one class together.

    Args:
      pseudo: the directions.
      logits: [B, K] of the teacher.
      features: [B, P] of the teacher.
      temperature: of p_t.
      tau: of the law of a class's pseudo-classes.

    Raises:
      ConfigError: shapes that do not fit, a temperature that cannot be.

    Example:
      >>> pseudo = PseudoClasses(jnp.zeros((2, 3, 4)), jnp.zeros((2, 4)))
      >>> pseudo_probabilities(pseudo, jnp.zeros((1, 2)), jnp.ones((1, 4))).round(3).tolist()[0][:2]
      [0.167..., 0.167...]
    """
    check_temperatures(temperature, tau)
    classes, _, width = pseudo.directions.shape
    if logits.shape[-1] != classes or features.shape[-1] != width:
        raise ConfigError(
            f"the teacher has {logits.shape[-1]} classes and {features.shape[-1]} features, the "
            f"pseudo-classes are of {classes} and {width}",
            fix="compute pseudo_classes from this teacher's features")
    along = jnp.einsum("ksp,bkp->bks", pseudo.directions, features[:, None] - pseudo.means,
                       precision="highest")
    each = jax.nn.softmax(logits / temperature)[..., None] * jax.nn.softmax(along / tau)
    return each.reshape(len(logits), -1)


def check_temperatures(temperature: float, tau: float) -> None:
    """Refuses temperatures at or below 0.

    Raises:
      ConfigError: as said.
    """
    require_above_zero("temperature", temperature, why="logits are divided by it", example=1.0)
    require_above_zero("tau", tau, why="projections are divided by it", example=1.0)


def lelp(logits: jax.Array, told: PseudoTargets) -> jax.Array:
    """-sum_{c,k} q(c, k) log softmax(logits)_{c,k}, [B]; logits [B, K * S].

    Raises:
      ConfigError: a student of other outputs than the pseudo-classes.

    Example:
      >>> lelp(jnp.zeros((1, 4)), PseudoTargets(jnp.full((1, 4), 0.25))).round(4).tolist()
      [1.38...]
    """
    return hard_term(logits, told.probabilities)


def _null_space(weights: np.ndarray) -> np.ndarray:
    """[P, P - rank], an orthonormal basis of all h with weights^T h = 0."""
    left, sizes, _ = np.linalg.svd(weights, full_matrices=True)
    rank = int((sizes > sizes.max(initial=0.0) * max(weights.shape) * 1e-7).sum())
    return left[:, rank:]


def _directions(
    centred: np.ndarray, count: int, number: int, rotation: np.ndarray
) -> np.ndarray:
    """[S, P - rank], the rotated principal directions over the root of their mean variance."""
    _, sizes, right = np.linalg.svd(centred, full_matrices=False)
    spread = int((sizes > sizes.max(initial=0.0) * 1e-6).sum())
    if spread < count:
        raise DataError(
            f"the features of class {number} spread in {spread} directions beside those of the "
            f"output weights, expected at least {count}",
            fix="give more images of each class, or pass a smaller per_class")
    variances = sizes[:count] ** 2 / len(centred)
    return rotation @ right[:count] / np.sqrt(variances.mean())


def _rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random orthogonal matrix, uniformly distributed: QR with the signs of R's diagonal."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return q * np.sign(np.diag(r))


def _check(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, per_class: int
) -> None:
    require_whole("per_class", per_class, example=4)
    fits = features.ndim == weights.ndim == 2 and labels.shape == features.shape[:1]
    if not fits or features.shape[1] != weights.shape[0]:
        raise ConfigError(
            f"features {list(features.shape)}, labels {list(labels.shape)} and output weights "
            f"{list(weights.shape)} do not fit, expected [N, P], [N] and [P, K]",
            fix="pass the features, class numbers and last kernel of one teacher")


ENTRIES = {
    "lelp": Entry(lelp, targets="PseudoTargets", source="Loo et al. 2024, LELP"),
}
