"""What networks are told by a teacher and by labels together, on images that were chosen.

  L = (1 - a) CE(z, y) + a T^2 KL(p || softmax(z / T)),   p = softmax(teacher's logits / T)

Source: Ben-Baruch et al., Distilling the Knowledge in Data Pruning, 2024. T and its square are not
found in its text; they are those of Hinton et al., Distilling the Knowledge in a Neural Network,
2015.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.errors import require_above_zero, require_probability
from dd_jax.labels.losses import Loss, cross_entropy
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.types import Network, PyTree

_FEW = 50  # images per class up to which the teacher alone is listened to
_SHARES, _LEAST = (0.1, 1.0), (0.9, 0.5)  # of the images, and a there


class Told(NamedTuple):
    """The targets of a batch.

    Attributes:
      labels: the set's own, [B, K].
      logits: the teacher's, [B, K].
    """

    labels: jax.Array
    logits: jax.Array


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A loss times a constant.

    Example:
      >>> Scaled(cross_entropy, 2.0)(jnp.zeros((1, 2)), jnp.eye(2)[:1]).tolist()
      [1.386...]
    """

    loss: Loss
    factor: float

    def __call__(self, logits: jax.Array, targets: PyTree) -> jax.Array:
        return self.factor * self.loss(logits, targets)


@dataclasses.dataclass(frozen=True)
class _Both:
    """The loss of the module's docstring."""

    share: float
    temperature: float

    def __call__(self, logits: jax.Array, told: Told) -> jax.Array:
        own = cross_entropy(logits, told.labels)
        student, teacher = (jax.nn.log_softmax(x / self.temperature)
                            for x in (logits, told.logits))
        apart = jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1)
        return (1 - self.share) * own + self.share * self.temperature**2 * apart


@dataclasses.dataclass(frozen=True)
class _LabelsAndLogits:
    """The labels of the views, and what a network whose variables are the arrays says of them."""

    network: Network

    def __call__(self, arrays: PyTree, views: Views) -> Told:
        def logits(images):
            return self.network.apply(arrays, images).logits

        return Told(views.labels, in_chunks(logits, views.images))


def teacher_and_labels(
    network: Network, variables: PyTree, *, share: float, temperature: float = 4.0
) -> Supervision:
    """A teacher that looks at the same views, and the labels of the set.

    Args:
      network: of the teacher, trained on all real images.
      variables: of the teacher; they are the supervision's arrays. Its batch normalisation takes
        running statistics.
      share: a, of the teacher, in [0, 1]; see `teacher_share`.
      temperature: T, above 0.

    Returns:
      A `Supervision` whose targets are `Told`.

    Raises:
      ConfigError: a share or a temperature that cannot be.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> by = teacher_and_labels(network, network.init(jax.random.key(0)), share=1.0)
      >>> views = Views(jnp.ones((3, 2, 2, 1)), jnp.eye(3, 2), None, None, None)
      >>> told = by.targets(by.arrays, views)
      >>> bool((jnp.abs(by.loss(told.logits, told)) < 1e-3).all())
      True
    """
    require_probability("share", share)
    require_above_zero("temperature", temperature, why="logits are divided by it", example=4.0)
    return Supervision(_LabelsAndLogits(network), _Both(float(share), float(temperature)),
                       variables)


def teacher_share(kept: float, per_class: float) -> float:
    """The teacher's part a, by how many images are left.

    1 for up to 50 images per class; for more it falls from 0.9 at a tenth of the images to 0.5 at
    all of them. The paper says that the best a grows as fewer images are kept, and near 1 at a
    tenth; between these it is interpolated here.

    Args:
      kept: share of the real images, in (0, 1].
      per_class: images per class, above 0.

    Raises:
      ConfigError: a number that cannot be.

    Example:
      >>> [round(teacher_share(kept, 1000 * kept), 3) for kept in (0.01, 0.1, 0.55, 1.0)]
      [1.0, 0.9, 0.7, 0.5]
    """
    require_probability("kept", kept)
    require_above_zero("kept", kept, why="no image is left", example=0.1)
    require_above_zero("per_class", per_class, why="no image is left", example=10)
    if per_class <= _FEW:
        return 1.0
    place = min(max((kept - _SHARES[0]) / (_SHARES[1] - _SHARES[0]), 0.0), 1.0)
    return _LEAST[0] + place * (_LEAST[1] - _LEAST[0])
