"""Soft-label DD: Soft-Label Dataset Distillation and Text Dataset Distillation (Sucholutsky and
Schonlau, IJCNN 2021).

DD whose labels are free vectors Y, learned along: the inner loss is -sum_c Y_c log softmax(f)_c.
They start one-hot; networks are tested on them by the same loss.

Differs from the official code: as DD does, see `methods.dd`; a set has as many images of every
class (there there may be fewer images than classes); no softmax over the labels, as there by
default. The released figures (MNIST, ten images: 96; CIFAR-10, 100 images: 60) are for one fixed
network, initialisation="fixed".
"""

from __future__ import annotations

import dataclasses

from dd_jax.distill.recipe import Recipe
from dd_jax.methods import dd
from dd_jax.methods.record import Method
from dd_jax.types import RealData

_CITATION = (
    "I. Sucholutsky, M. Schonlau. Soft-Label Dataset Distillation and Text Dataset Distillation. "
    "IJCNN 2021."
)


@dataclasses.dataclass(frozen=True)
class SoftLabelDD(dd.DD):
    """Settings of soft-label DD, those of `dd.DD`."""


def official(ipc: int) -> SoftLabelDD:
    """The settings of the official code for MNIST."""
    return SoftLabelDD(**dataclasses.asdict(dd.official(ipc)))


def cpu(ipc: int) -> SoftLabelDD:
    """Settings for five minutes on one or two CPU cores."""
    return SoftLabelDD(**dataclasses.asdict(dd.cpu(ipc)))


def recipe(config: SoftLabelDD, data: RealData) -> Recipe:
    """Soft-label DD as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    return dd.ordered_recipe(config, data, method="soft_label_dd", citation=_CITATION,
                             build=recipe, labels="learned", kind="logits",
                             loss="free_cross_entropy")


METHOD = Method(
    name="soft_label_dd",
    title="Soft-Label Dataset Distillation and Text Dataset Distillation",
    config=SoftLabelDD,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={},
    citation=_CITATION,
)
