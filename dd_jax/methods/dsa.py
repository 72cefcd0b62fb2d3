"""DSA: Dataset Condensation with Differentiable Siamese Augmentation (Zhao and Bilen, ICML 2021).

DC where the real and the synthetic images of a class get the same random augmentation, and networks
are trained, inside and for the test, with it.

Differs from the official code: as DC does, see `methods.dc`; and the augmentation is "dsa" whatever
the data: give "dsa_digits" (no flip) for MNIST or SVHN.
"""

from __future__ import annotations

import dataclasses

from dd_jax.distill.recipe import Recipe
from dd_jax.methods import dc
from dd_jax.methods.record import Method, Published
from dd_jax.types import RealData

_CITATION = (
    "B. Zhao, H. Bilen. Dataset Condensation with Differentiable Siamese Augmentation. ICML 2021."
)


@dataclasses.dataclass(frozen=True)
class DSA(dc.DC):
    """Settings of DSA: those of DC with an augmentation; the defaults are the official ones."""

    start: str = "real"
    augmentation: str = "dsa"
    evaluation_epochs: int = 1001


def official(ipc: int) -> DSA:
    """The settings of the official code."""
    return DSA(ipc=ipc, **dc.loops(ipc))


def cpu(ipc: int) -> DSA:
    """Settings for five minutes on two CPU cores."""
    return dc.narrow(official(ipc), **dc.cpu_loops(ipc))


def recipe(config: DSA, data: RealData) -> Recipe:
    """DSA as a composition of the library's parts, see `dc.matching_recipe`."""
    return dc.matching_recipe(config, data, method="dsa", citation=_CITATION)


_SOURCE = "DSA, means of the official repository, deviations as tabulated in DANCE"
METHOD = Method(
    name="dsa",
    title="Dataset Condensation with Differentiable Siamese Augmentation",
    config=DSA,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("fashion_mnist", 1): Published(70.6, 0.6, _SOURCE),
        ("fashion_mnist", 10): Published(84.6, 0.3, _SOURCE),
        ("fashion_mnist", 50): Published(88.7, 0.2, _SOURCE),
        ("cifar10", 1): Published(28.8, 0.7, _SOURCE),
        ("cifar10", 10): Published(52.1, 0.5, _SOURCE),
        ("cifar10", 50): Published(60.6, 0.5, _SOURCE),
        ("cifar100", 1): Published(13.9, 0.3, _SOURCE),
        ("cifar100", 10): Published(32.3, 0.3, _SOURCE),
        ("cifar100", 50): Published(42.8, 0.4, _SOURCE),
    },
    citation=_CITATION,
)
