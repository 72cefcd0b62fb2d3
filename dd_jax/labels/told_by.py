"""Targets of the losses that look at more than logits: from live teachers, view by view."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import in_chunks
from dd_jax.errors import ConfigError, DataError, require_whole
from dd_jax.labels.live import look
from dd_jax.labels.losses.pseudo_classes import (
    PseudoClasses,
    PseudoTargets,
    check_temperatures,
    lelp,
    pseudo_probabilities,
)
from dd_jax.labels.losses.record import Loss, require_loss
from dd_jax.labels.losses.told import Ensemble, Told, Weighted
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.types import Network, PyTree


def teacher_outputs(
    network: Network, variables: PyTree, *, loss: Loss, means: jax.Array | None = None
) -> Supervision:
    """A teacher on the same views, of whose whole outputs the targets are: `Told`.

    Batch normalisation of the teacher takes its running statistics.

    Args:
      network: of the teacher.
      variables: of the teacher.
      loss: (outputs, told) -> [B], such as `vkd`.
      means: [K, P] of `class_means`, for losses that need them.

    Returns:
      A `Supervision` whose arrays are (variables, means).

    Raises:
      ConfigError: a loss that is no function; where it is used, labels that are not [B, K], means
        of another number of classes.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> told = teacher_outputs(network, network.init(jax.random.key(0)), loss=print)
      >>> views = Views(jnp.ones((3, 2, 2, 1)), jnp.eye(3, 2), None, None, None)
      >>> told.targets(told.arrays, views).features.shape
      (3, 4)
    """
    require_loss(loss)
    return Supervision(_WholeOutputs(network), loss, (variables, means))


@dataclasses.dataclass(frozen=True)
class _WholeOutputs:
    network: Network

    def __call__(self, arrays: PyTree, views: Views) -> Told:
        variables, means = arrays
        if jnp.ndim(views.labels) != 2:
            raise ConfigError(f"labels are {list(jnp.shape(views.labels))}, expected [B, K]",
                              fix="pass one-hot or soft labels")

        def seen(images):
            return tuple(self.network.apply(variables, images)[:3])

        logits, features, taps = in_chunks(seen, views.images)
        if means is not None:
            means = _own_means(means, views.labels)
        return Told(views.labels, logits, features, taps, means)


def _own_means(means: jax.Array, labels: jax.Array) -> jax.Array:
    if means.shape[0] != labels.shape[1]:
        raise ConfigError(f"there are means of {means.shape[0]} classes and labels of "
                          f"{labels.shape[1]}", fix="pass class_means of the same set")
    return jnp.matmul(labels.astype(means.dtype), means, precision="highest")


def class_means(
    network: Network, variables: PyTree, images: jax.Array, labels: np.ndarray, *, classes: int
) -> jax.Array:
    """Mean features of each class over a real set, [K, P] float32.

    Args:
      network, variables: of the teacher.
      images: [N, H, W, C] in model space, as they are, without augmentation.
      labels: [N] class numbers.
      classes: K.

    Raises:
      ConfigError: as many labels as images are expected.
      DataError: a class without images.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> class_means(network, network.init(jax.random.key(0)), jnp.ones((3, 2, 2, 1)),
      ...             np.array([0, 1, 1]), classes=2).shape
      (2, 4)
    """
    require_whole("classes", classes, example=10)
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"labels are {labels.dtype} {list(labels.shape)} for {len(images)} "
                          "images, expected class numbers [N]",
                          fix="pass one class number for each image")
    counts = np.bincount(np.maximum(labels, 0), minlength=classes)
    if labels.min() < 0 or len(counts) > classes or not counts.all():
        raise DataError(f"classes have {counts.tolist()} images, expected some of each of "
                        f"{classes}", fix="pass images of all classes")
    features = in_chunks(lambda x: network.apply(variables, x).features, jnp.asarray(images))
    summed = jax.ops.segment_sum(features, jnp.asarray(labels), classes)
    return summed / jnp.asarray(counts, summed.dtype)[:, None]


def ensemble_outputs(
    teachers: Sequence[tuple[Network, PyTree]], *, loss: Loss
) -> Supervision:
    """Several teachers on the same views: means of their probabilities and of their logits.

    Args:
      teachers: (network, variables) of each.
      loss: (outputs, told: Ensemble) -> [B], such as `meal_v2`.

    Returns:
      A `Supervision` whose arrays are the teachers' variables.

    Raises:
      ConfigError: no teachers, a loss that is no function.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> both = [(network, network.init(jax.random.key(seed))) for seed in range(2)]
      >>> told = ensemble_outputs(both, loss=print)
      >>> views = Views(jnp.ones((3, 2, 2, 1)), None, None, None, None)
      >>> told.targets(told.arrays, views).probabilities.sum(axis=1).round(3).tolist()
      [1.0, 1.0, 1.0]
    """
    require_loss(loss)
    if not teachers:
        raise ConfigError("there are no teachers, expected at least one",
                          fix="pass [(network, variables), ...]")
    networks, variables = zip(*teachers)
    return Supervision(_Committee(tuple(networks)), loss, tuple(variables))


@dataclasses.dataclass(frozen=True)
class _Committee:
    networks: tuple[Network, ...]

    def __call__(self, arrays: PyTree, views: Views) -> Ensemble:
        def seen(images):
            return ensemble(jnp.stack([network.apply(variables, images).logits
                                       for network, variables in zip(self.networks, arrays)]))

        return in_chunks(seen, views.images)


def ensemble(logits: jax.Array) -> Ensemble:
    """[m, B, K] logits of m teachers -> the means over them of probabilities and of logits.

    Example:
      >>> ensemble(jnp.zeros((3, 1, 2))).probabilities.tolist()
      [[0.5, 0.5]]
    """
    return Ensemble(jnp.mean(jax.nn.softmax(logits), axis=0), jnp.mean(logits, axis=0))


def pseudo_class_targets(
    network: Network, variables: PyTree, pseudo: PseudoClasses, *, temperature: float = 1.0,
    tau: float = 1.0, loss: Loss = lelp,
) -> Supervision:
    """LELP's targets q(c, k | x) by a teacher on the same views: `PseudoTargets`.

    Args:
      network, variables: of the teacher.
      pseudo: `pseudo_classes` of its features.
      temperature, tau: see `pseudo_probabilities`.
      loss: of a student of K * S outputs.

    Returns:
      A `Supervision` whose arrays are (variables, pseudo).

    Raises:
      ConfigError: a temperature that cannot be, a loss that is no function.
    """
    require_loss(loss)
    check_temperatures(temperature, tau)
    return Supervision(_Pseudo(network, float(temperature), float(tau)), loss,
                       (variables, pseudo))


@dataclasses.dataclass(frozen=True)
class _Pseudo:
    network: Network
    temperature: float
    tau: float

    def __call__(self, arrays: PyTree, views: Views) -> PseudoTargets:
        variables, pseudo = arrays

        def seen(images):
            outputs = self.network.apply(variables, images)
            return pseudo_probabilities(pseudo, outputs.logits, outputs.features,
                                        temperature=self.temperature, tau=self.tau)

        return PseudoTargets(in_chunks(seen, views.images))


def reweighted_teacher(
    network: Network, variables: PyTree, weights: jax.Array, *, loss: Loss
) -> Supervision:
    """A teacher's logits on the same views, with the weight of each image of the set: `Weighted`.

    Args:
      network, variables: of the teacher.
      weights: [M] of the set's images, see `importance`.
      loss: (logits, told: Weighted) -> [B].

    Raises:
      ConfigError: weights that are not one number for each image, a loss that is no function.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> told = reweighted_teacher(network, network.init(jax.random.key(0)), jnp.array([1., 2.]),
      ...                           loss=print)
      >>> views = Views(jnp.ones((1, 2, 2, 1)), None, jnp.array([1]), None, None)
      >>> told.targets(told.arrays, views).weights.tolist()
      [2.0]
    """
    require_loss(loss)
    weights = jnp.asarray(weights)
    if weights.ndim != 1:
        raise ConfigError(f"weights are {list(weights.shape)}, expected [M]",
                          fix="pass one weight for each image of the set")
    return Supervision(_Reweighted(network), loss, (variables, weights))


@dataclasses.dataclass(frozen=True)
class _Reweighted:
    network: Network

    def __call__(self, arrays: PyTree, views: Views) -> Weighted:
        variables, weights = arrays
        logits = look(self.network, variables, views.images)
        return Weighted(logits, weights[views.rows])
