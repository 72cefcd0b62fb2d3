"""Knowledge distillation on pruned data: labels and a teacher of the whole set, weighed by share.

  loss = (1 - a) CE(z, y) + a T^2 KL( softmax(t / T) || softmax(z / T) )

with a student's logits z, its teacher's t and the set's own labels y. The fewer of the real images
are left, the more the teacher counts.

Differs from the paper, whose code is not public: a by the share of the images is this library's
line between what the paper tells of its ends, and T and its square are the usual ones.

Source: Ben-Baruch et al., Distilling the Knowledge in Data Pruning, 2024.
"""

from __future__ import annotations

from dd_jax.errors import require_above_zero, require_probability
from dd_jax.labels.losses import NamedLoss, WeightedSum, named, weighted_sum
from dd_jax.labels.supervision import Supervision, own_labels, teacher
from dd_jax.types import Network, PyTree

_FEW, _ALPHA_OF_ALL = 0.1, 0.5


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


def labels_and_teacher(alpha: float, temperature: float = 4.0) -> NamedLoss | WeightedSum:
    """(1 - a) CE + a T^2 KL as a loss of `labels.losses`; one of the two alone where a is 0 or 1.

    Args:
      alpha: a, in 0..1.
      temperature: T, above 0.

    Raises:
      ConfigError: numbers that cannot be.

    Example:
      >>> labels_and_teacher(0.75).name
      '0.25*cross_entropy+0.75*kl'
    """
    require_probability("alpha", alpha)
    own, apart = named("cross_entropy"), named("kl", temperature=temperature)
    if alpha in (0.0, 1.0):
        return apart if alpha else own
    return weighted_sum((1.0 - alpha, own), (alpha, apart))


def pruned_data(
    network: Network, variables: PyTree, *, share: float, alpha: float | None = None,
    temperature: float = 4.0, mode: str = "running",
) -> Supervision:
    """What a student is told on a part of the data, by labels and a teacher of all of them.

    Args:
      network, variables: of the teacher, trained on all real images; mostly of the student's kind,
        and no larger one where few images are left.
      share: of the real images that the student has, in (0, 1].
      alpha: how much the teacher counts, in 0..1; `alpha_of(share)` by default. At 0 the labels
        alone are looked at, and at 1 the teacher.
      temperature: above 0.
      mode: of the teacher's batch normalisation, see `labels.teacher`.

    Returns:
      A `Supervision`; the labels of the set have to be probabilities.

    Raises:
      ConfigError: numbers that cannot be; where it is used, labels that are class numbers.

    Example:
      >>> import jax
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (2, 2, 1), 2, ("a", "b")), width=4)
      >>> pruned_data(network, network.init(jax.random.key(0)), share=0.1).loss.name
      'kl'
    """
    kept = alpha_of(share)
    loss = labels_and_teacher(kept if alpha is None else alpha, temperature)
    if loss.name == "cross_entropy":
        return own_labels(loss)
    return teacher(network, variables, loss=loss, mode=mode)
