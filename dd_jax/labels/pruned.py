"""Knowledge distillation on pruned data: labels and a teacher of the whole set, weighed by share.

  loss = (1 - a) CE(z, y) + a T^2 KL( softmax(t / T) || softmax(z / T) )

with a student's logits z, its teacher's t and the set's own labels y. The fewer of the real images
are left, the more the teacher counts.

Differs from the paper, whose code is not public: a by the share of the images is this library's
line between what the paper tells of its ends, and T is the usual 4.

Source: Ben-Baruch et al., Distilling the Knowledge in Data Pruning, 2024.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero, require_probability
from dd_jax.labels.live import check_mode, look
from dd_jax.train.supervision import Supervision, Views
from dd_jax.types import Network, PyTree

_FEW, _ALPHA_OF_ALL = 0.1, 0.5


class LabelsAndLogits(NamedTuple):
    """What the loss is told.

    Attributes:
      labels: [B, K] of the set, which sum to one.
      logits: [B, K] of the teacher.
    """

    labels: jax.Array
    logits: jax.Array


def alpha_of(share: float) -> float:
    """How much the teacher counts where so much of the data is left.

    1 up to a tenth of the images, 0.5 for all of them, and a line between.

    Raises:
      ConfigError: a share that is not in (0, 1].

    Example:
      >>> alpha_of(0.01), alpha_of(0.55), alpha_of(1.0)
      (1.0, 0.75, 0.5)
    """
    require_probability("share", share)
    require_above_zero("share", share, why="no image would be left", example=0.1)
    beyond = max(0.0, share - _FEW) / (1.0 - _FEW)
    return 1.0 - (1.0 - _ALPHA_OF_ALL) * beyond


def labels_and_teacher(
    logits: jax.Array, told: LabelsAndLogits, *, alpha: float, temperature: float = 4.0
) -> jax.Array:
    """(1 - a) CE(z, y) + a T^2 KL( softmax(t / T) || softmax(z / T) ).

    Args:
      logits: z, [B, K].
      told: y and t.
      alpha: a, in 0..1.
      temperature: T.

    Returns:
      [B].

    Example:
      >>> z, y = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 0.0]])
      >>> labels_and_teacher(z, LabelsAndLogits(y, z + 3), alpha=1.0).round(4).tolist()
      [0.0]
    """
    own = -jnp.sum(told.labels * jax.nn.log_softmax(logits), axis=-1)
    theirs, ours = (jax.nn.log_softmax(z / temperature) for z in (told.logits, logits))
    apart = jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)
    return (1.0 - alpha) * own + alpha * temperature**2 * apart


@dataclasses.dataclass(frozen=True)
class _Loss:
    alpha: float
    temperature: float

    def __call__(self, logits: jax.Array, told: LabelsAndLogits) -> jax.Array:
        return labels_and_teacher(logits, told, alpha=self.alpha, temperature=self.temperature)


@dataclasses.dataclass(frozen=True)
class _Both:
    """The labels of the views and what a network, whose variables are the arrays, says of them."""

    network: Network
    mode: str

    def __call__(self, arrays: PyTree, views: Views) -> LabelsAndLogits:
        if jnp.issubdtype(views.labels.dtype, jnp.integer):
            raise ConfigError("labels are integers, expected probabilities [B, K]",
                              fix="pass one-hot labels")
        return LabelsAndLogits(views.labels, look(self.network, arrays, views.images,
                                                  mode=self.mode))


def pruned_data(
    network: Network, variables: PyTree, *, share: float, alpha: float | None = None,
    temperature: float = 4.0, mode: str = "running",
) -> Supervision:
    """What a student is told on a part of the data, by labels and a teacher of all of them.

    Args:
      network, variables: of the teacher, trained on all real images; mostly of the student's kind,
        and no larger one where few images are left.
      share: of the real images that the student has, in (0, 1].
      alpha: how much the teacher counts, in 0..1; `alpha_of(share)` by default.
      temperature: above 0.
      mode: of the teacher's batch normalisation, see `labels.teacher`.

    Returns:
      A `Supervision`; the labels of the set have to be probabilities.

    Raises:
      ConfigError: numbers that cannot be; where it is used, labels that are class numbers.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> pruned_data(network, network.init(jax.random.key(0)), share=0.1).loss.alpha
      1.0
    """
    alpha = alpha_of(share) if alpha is None else alpha
    require_probability("alpha", alpha)
    require_above_zero("temperature", temperature, why="logits are divided by it", example=4.0)
    check_mode(mode)
    return Supervision(_Both(network, mode), _Loss(float(alpha), float(temperature)), variables)
