"""What a network in training is told: where its targets come from, and the loss against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero
from dd_jax.labels.live import check_mode, look, told_to
from dd_jax.train.losses import Loss, cross_entropy, require_loss
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
    """What a network says of the views; its variables are the arrays."""

    network: Network
    told: str
    temperature: float
    mode: str

    def __call__(self, arrays: PyTree, views: Views) -> PyTree:
        return look(self.network, arrays, views.images, told=self.told,
                    temperature=self.temperature, mode=self.mode)


@dataclasses.dataclass(frozen=True)
class _Tempered:
    """A loss of logits that are divided by a temperature."""

    loss: Loss
    temperature: float

    @property
    def whole(self) -> bool:
        """Whether the loss compares the rows of a batch."""
        return getattr(self.loss, "whole", False)

    def __call__(self, logits: jax.Array, targets: PyTree) -> jax.Array:
        return self.loss(logits / self.temperature, targets)


def tempered(loss: Loss, temperature: float) -> Loss:
    """The loss of logits / temperature, for a loss that is told probabilities.

    Raises:
      ConfigError: the loss is told something else, or looks at a student's features: it has its own
        temperature.
    """
    if temperature == 1.0:
        return loss
    if told_to(loss) != "probabilities" or getattr(loss, "of", "logits") != "logits":
        raise ConfigError(f"temperature is {temperature:g}, and the loss has its own",
                          fix="leave temperature=1.0, and give the loss one: 'kl@4'")
    return _Tempered(loss, float(temperature))


def teacher(
    network: Network, variables: PyTree, *, temperature: float = 1.0, loss: Loss = cross_entropy,
    mode: str = "running",
) -> Supervision:
    """A teacher that looks at the same views: targets are softmax(its logits / temperature).

    The student's logits are divided by the temperature, too. The set's labels are not used. A loss
    whose `targets` are others is told these: the teacher's logits, classes or outputs.

    Args:
      network: of the teacher.
      variables: of the teacher; they are the supervision's arrays.
      temperature: above 0.
      loss: (student's logits / temperature, targets [B, K]) -> [B].
      mode: batch normalisation of the teacher takes its "running" statistics, or those of the
        "batch".

    Returns:
      A `Supervision`.

    Raises:
      ConfigError: a temperature or a mode that cannot be, a loss that is no function, or that a
        teacher has nothing to tell.

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
    require_loss(loss)
    check_mode(mode)
    targets = _Teacher(network, told_to(loss), float(temperature), mode)
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
