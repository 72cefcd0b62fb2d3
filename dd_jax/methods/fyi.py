"""FYI: Flip Your Images for Dataset Distillation (Son et al., ECCV 2024), on DSA.

The synthetic set enters every loss together with its mirror images. `distill.flipped(recipe)` does
that to any recipe; this method is the paper's composition with DSA: `flipped(dsa)`.

Differs from the official code: as DSA does, see `methods.dsa`; DSA's own flip stays one of its six
operations (there it precedes one of the other five); networks are trained on batches of the set and
its mirror images (there each batch is doubled by its own mirror images, which is the same wherever
twice the set fits into one batch); the loops at 50 per class are DSA's (there 10 and 10 for
CIFAR-100).
"""

from __future__ import annotations

import dataclasses

from dd_jax.distill.flipped import flipped
from dd_jax.distill.recipe import Recipe
from dd_jax.methods import dsa
from dd_jax.methods.record import Method, Published
from dd_jax.types import RealData

_CITATION = (
    "B. Son, Y. Oh, D. Baek, B. Ham. FYI: Flip Your Images for Dataset Distillation. ECCV 2024."
)


@dataclasses.dataclass(frozen=True)
class FYI(dsa.DSA):
    """Settings of FYI: those of DSA."""


def official(ipc: int) -> FYI:
    """The settings of the official code."""
    return FYI(**dataclasses.asdict(dsa.official(ipc)))


def cpu(ipc: int) -> FYI:
    """Settings for five minutes on two CPU cores."""
    return FYI(**dataclasses.asdict(dsa.cpu(ipc)))


def recipe(config: FYI, data: RealData) -> Recipe:
    """FYI: DSA's recipe, flipped."""
    return dataclasses.replace(flipped(dsa.recipe(config, data)), method="fyi", citation=_CITATION)


_SOURCE = "DSA with FYI, table of the project"
METHOD = Method(
    name="fyi",
    title="FYI: Flip Your Images for Dataset Distillation",
    config=FYI,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(30.6, 0.7, _SOURCE),
        ("cifar10", 10): Published(54.7, 0.5, _SOURCE),
        ("cifar10", 50): Published(63.7, 0.5, _SOURCE),
        ("cifar100", 1): Published(16.0, 0.3, _SOURCE),
        ("cifar100", 10): Published(35.0, 0.3, _SOURCE),
        ("cifar100", 50): Published(45.4, 0.4, _SOURCE),
    },
    citation=_CITATION,
)
