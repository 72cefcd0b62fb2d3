"""What a network in training is told: where its targets come from, and the loss against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero
from dd_jax.labels.live import TOLD, check_mode, look, told_to
from dd_jax.labels.losses import Loss, cross_entropy, require_loss
from dd_jax.types import Network, PyTree


class Views(NamedTuple):
    """The batch of a step as the network sees it.

    Attributes:
      images: [B, H, W, C] after augmentation and mixing.
      labels: [B, K], or whatever the set has, after mixing.
      rows: [B] int32, which images of the set they were.
      epoch: [] int32, of this step.
      key: PRNG key of what targets draw.
    """

    images: jax.Array
    labels: PyTree
    rows: jax.Array
    epoch: jax.Array
    key: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Supervision:
    """Where the targets of a training come from, and the loss of the outputs against them.

    A pytree: passed to a compiled function its arrays travel as arguments, so that two supervisions
    that differ in them alone share one program. The functions have to be equal for that: plain
    functions, or frozen dataclasses with `__call__`, as here.

    Attributes:
      targets: (arrays, views: Views) -> the targets, a pytree of [B, ...]; without derivative.
      loss: (logits [B, K], targets) -> [B].
      arrays: what targets are computed from, such as a teacher's variables.
    """

    targets: Callable[[PyTree, Views], PyTree] = dataclasses.field(metadata=dict(static=True))
    loss: Loss = dataclasses.field(default=cross_entropy, metadata=dict(static=True))
    arrays: PyTree = ()


def own_labels(loss: Loss = cross_entropy) -> Supervision:
    """The set's labels, mixed as the images are.

    Example:
      >>> own_labels().targets((), Views(None, jnp.eye(2), None, None, None)).shape
      (2, 2)
    """
    require_loss(loss)
    return Supervision(_labels, loss)


def _labels(arrays: PyTree, views: Views) -> PyTree:
    return views.labels


@dataclasses.dataclass(frozen=True)
class _Teacher:
    """What is made of the logits of a network whose variables are the arrays."""

    network: Network
    told: str
    temperature: float
    mode: str

    def __call__(self, arrays: PyTree, views: Views) -> PyTree:
        logits = look(self.network, arrays, views.images, mode=self.mode)
        return TOLD[self.told](logits, views.labels, self.temperature)


@dataclasses.dataclass(frozen=True)
class Tempered:
    """A loss of logits that are divided by a temperature."""

    loss: Loss
    temperature: float

    @property
    def whole(self) -> bool:
        return getattr(self.loss, "whole", False)

    def __call__(self, logits: jax.Array, targets: PyTree) -> jax.Array:
        return self.loss(logits / self.temperature, targets)


def tempered(loss: Loss, temperature: float) -> Loss:
    """The loss of logits / temperature; itself at 1.

    Example:
      >>> tempered(cross_entropy, 1.0) is cross_entropy
      True
    """
    return loss if temperature == 1.0 else Tempered(loss, float(temperature))


def teacher(
    network: Network, variables: PyTree, *, temperature: float = 1.0, loss: Loss = cross_entropy,
    mode: str = "running",
) -> Supervision:
    """A teacher that looks at the same views: targets are softmax(its logits / temperature).

    The student's logits are divided by the temperature, too. A loss of `labels.losses` that takes a
    teacher's logits gets them as they are, and has its own temperature; with them the set's labels,
    mixed as the images are, or their largest class, where it asks for those.

    Args:
      network: of the teacher.
      variables: of the teacher; they are the supervision's arrays.
      temperature: above 0.
      loss: (student's logits / temperature, targets [B, K]) -> [B], or one that `losses.named`
        gives.
      mode: batch normalisation of the teacher takes its "running" statistics, or those of the
        "batch".

    Returns:
      A `Supervision`.

    Raises:
      ConfigError: a mode or a temperature that cannot be, or beside that of a loss on logits; a
        loss that is no function, or takes what a teacher of the same views does not say.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> told = teacher(network, network.init(jax.random.key(0)), temperature=4.0)
      >>> views = Views(jnp.ones((3, 2, 2, 1)), None, None, None, None)
      >>> told.targets(told.arrays, views).sum(axis=1).round(3).tolist()
      [1.0, 1.0, 1.0]
    """
    require_above_zero("temperature", temperature, why="logits are divided by it", example=1.0)
    check_mode(mode)
    targets = _Teacher(network, told_to(loss, temperature), float(temperature), mode)
    return Supervision(targets, tempered(loss, temperature), variables)


def stored_targets(
    targets: PyTree, *, loss: Loss = cross_entropy, by_epoch: bool = False
) -> Supervision:
    """Targets that were computed beforehand, of each image or of each image in each epoch.

    They belong to images as the set has them: what views do to an image is not known to them.

    Args:
      targets: pytree of [M, ...], or of [E, M, ...] with `by_epoch`; epoch e takes e mod E.
      loss: (logits, targets) -> [B].
      by_epoch: whether the leading axis are epochs.

    Returns:
      A `Supervision`.

    Raises:
      ConfigError: no targets, too few axes, or a loss that is no function.

    Example:
      >>> told = stored_targets(jnp.arange(6.0).reshape(2, 3, 1), by_epoch=True)
      >>> told.targets(told.arrays, Views(None, None, jnp.array([2]), jnp.int32(1), None)).tolist()
      [[5.0]]
    """
    require_loss(loss)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(targets)]
    if not shapes or any(len(shape) < 1 + by_epoch for shape in shapes):
        raise ConfigError(f"stored targets have shapes {shapes}, expected "
                          + ("[E, M, ...]" if by_epoch else "[M, ...]"),
                          fix="pass one row for each image of the set")
    return Supervision(_of_epoch if by_epoch else _of_rows, loss, targets)


def _of_rows(arrays: PyTree, views: Views) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x)[views.rows], arrays)


def _of_epoch(arrays: PyTree, views: Views) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x)[views.epoch % x.shape[0], views.rows], arrays)
