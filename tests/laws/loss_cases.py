"""One row of a table for each loss: what it is told, and what is true of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from dd_jax.labels.losses import Taught
from dd_jax.labels.losses.ferkd import Judged
from dd_jax.labels.losses.mst import Committee
from dd_jax.labels.losses.skewed import Contrast
from dd_jax.labels.losses.sla import Shown
from dd_jax.labels.losses.swing import Private
from dd_jax.labels.losses.taid import Interpolated
from tests.labels import reference_losses as by_numpy

COUNT = 6  # rows; AugMix has three for each image
SPREAD = ("soft", "one_hot", "flat")


def teacher(rng, classes, spread, *lead):
    """Logits that are soft, sure of a class, or all equal."""
    shape = (*lead, COUNT, classes)
    sure = np.argmax(rng.normal(size=shape), axis=-1)
    return {"soft": 2 * rng.normal(size=shape), "one_hot": 30.0 * np.eye(classes)[sure],
            "flat": np.zeros(shape)}[spread]


def probabilities(rng, classes, spread):
    return by_numpy.softmax({"one_hot": 30.0}.get(spread, 1.0) * teacher(rng, classes, spread))


def numbers(rng, classes, spread):
    return rng.integers(0, classes, COUNT)


def taught(labels):
    return lambda rng, classes, spread: Taught(teacher(rng, classes, spread),
                                               labels(rng, classes, spread))


def contrast(rng, classes, spread):
    return Contrast(teacher(rng, classes, spread), np.arange(COUNT) % 2)


def interpolated(rng, classes, spread):
    return Interpolated(teacher(rng, classes, spread), rng.uniform(size=COUNT))


def judged(rng, classes, spread):
    return Judged(probabilities(rng, classes, spread), numbers(rng, classes, spread))


def committee(rng, classes, spread):
    return Committee(np.moveaxis(teacher(rng, classes, spread, 3), 0, 1),
                     rng.uniform(size=(COUNT, 3)))


def private(rng, classes, spread):
    return Private(teacher(rng, classes, spread), rng.uniform(size=COUNT))


def shown(rng, outputs, spread):
    """Half as many classes as outputs, each shown in two ways."""
    return Shown(probabilities(rng, outputs // 2, spread), rng.integers(0, 2, COUNT))


def half_known(rng, classes, spread):
    return teacher(rng, max(1, classes // 2), spread)


def as_teacher(z):
    return z + np.arange(len(z))[:, None]  # what softmax does not see


def sure_of_first(z):
    return 800.0 * np.eye(z.shape[1])[np.zeros(COUNT, int)]


@dataclasses.dataclass(frozen=True)
class Case:
    """What is true of a loss.

    Attributes:
      told: (rng, classes, spread) -> targets.
      zero: (logits) -> (logits, targets) where it is 0; None where it is not in general.
      flat: whether the slope is 0 there, too.
      shift: whether a number may be added to a row of logits.
      shuffle: whether classes may be numbered otherwise.
      options: other than the defaults.
    """

    told: Callable[..., Any]
    zero: Callable[..., Any] | None = None
    flat: bool = True
    shift: bool = True
    shuffle: bool = True
    options: tuple = ()


def equal(z):
    return z, as_teacher(z)


def exactly(z):
    return z, z


def first(told):
    """Zero where both are sure of class 0."""
    def place(z):
        sure = sure_of_first(z)
        return sure, told(sure)

    return place


FIRST = np.zeros(COUNT, int)
# Names of cases that are another setting of a loss stand behind a colon.
CASES = {
    "cross_entropy": Case(probabilities, first(lambda z: z / 800)),
    "free_cross_entropy": Case(teacher, lambda z: (z, 0 * z)),
    "integer_cross_entropy": Case(numbers, first(lambda z: FIRST)),
    "squared_error": Case(teacher, exactly, shift=False),
    "mean_squared_error": Case(teacher, exactly, shift=False),
    "mse": Case(teacher, exactly, shift=False),
    "mse:centred": Case(teacher, equal, options=(("centred", True),)),
    "kl": Case(teacher, equal),
    "kl:plain": Case(teacher, equal, options=(("temperature", 2.0), ("rescale", False))),
    "reverse_kl": Case(teacher, equal),
    "reverse_kl:hot": Case(teacher, equal, options=(("temperature", 3.0),)),
    "js": Case(teacher, equal),
    "js:half": Case(teacher, equal, options=(("share", 0.5), ("temperature", 2.0))),
    "tvd": Case(teacher, exactly),
    "adaptive_kl": Case(teacher, exactly, options=(("head", 0.495),)),
    "alpha_beta": Case(teacher, equal),
    "alpha_beta:more alpha": Case(teacher, equal, options=(("alpha", 0.9), ("beta", 0.3))),
    "alpha_beta:kl": Case(teacher, equal, options=(("alpha", 1.0), ("beta", 0.0))),
    "alpha_beta:reverse": Case(teacher, equal, options=(("alpha", 0.0), ("beta", 0.5))),
    "alpha_beta:logarithms": Case(teacher, equal, options=(("alpha", 0.0), ("beta", 0.0))),
    "skew_kl": Case(teacher, equal),
    "skew_reverse_kl": Case(teacher, equal),
    "skew_reverse_kl:flows": Case(teacher, equal, options=(("flows", True), ("skew", 0.3))),
    "distillm2": Case(contrast, lambda z: (z, Contrast(as_teacher(z), np.arange(COUNT) % 2)),
                      options=(("balance", 1.3),)),
    "sinkhorn": Case(teacher, lambda z: (0 * z + z[0], 0 * z + z[0])),
    "sinkhorn:constant plan": Case(teacher, lambda z: (0 * z + z[0], 0 * z + z[0]),
                                   options=(("unrolled", False), ("rounds", 5))),
    "uld": Case(teacher, exactly),
    "bd_kd": Case(teacher, equal),
    "pld": Case(taught(numbers), first(lambda z: Taught(z, FIRST))),
    "taid": Case(interpolated, first(lambda z: Interpolated(z, np.ones(COUNT)))),
    "luminet": Case(teacher, lambda z: (z, z + np.arange(z.shape[1])), shift=False),
    "binary_kl": Case(teacher, exactly, shift=False),
    "binary_kl_norm": Case(teacher, exactly, shift=False),
    "dkd": Case(taught(numbers), lambda z: (z, Taught(as_teacher(z), FIRST))),
    "dist": Case(teacher, equal),
    "standardised": Case(teacher, equal),
    "mixup_kd": Case(taught(probabilities)),
    "ofa": Case(taught(numbers), first(lambda z: Taught(z, FIRST))),
    "class_relation": Case(half_known, shuffle=False, options=(("scale", 1.0),)),
    "sla": Case(shown, first(lambda z: Shown(np.eye(z.shape[1] // 2)[FIRST], FIRST)),
                shuffle=False),
    "ldr": Case(numbers, lambda z: (0 * z, FIRST), flat=False, options=(("margin", 0.0),)),
    "ldr:margin": Case(numbers, options=(("temperature", 0.5), ("margin", 0.3))),
    "adaptive_ldr": Case(numbers),
    "adaptive_ldr:no margin": Case(numbers, lambda z: (0 * z, FIRST), flat=False,
                                   options=(("margin", 0.0), ("strength", 1.2))),
    "ferkd": Case(judged, lambda z: (z, Judged(0 * z + 0.1, FIRST))),
    "ferkd:smoothed": Case(judged, options=(("low", 0.0), ("middle", 0.6), ("high", 0.99))),
    "mst": Case(committee, lambda z: (z, Committee(np.stack([z + 1, 0 * z], axis=1),
                                                   np.tile([0.9, 0.1], (COUNT, 1))))),
    "mst:two": Case(committee, options=(("teachers", 2), ("rescale", False))),
    "swing": Case(private, lambda z: (z, Private(as_teacher(z), np.linspace(0, 1, COUNT)))),
    "augmix": Case(probabilities, first(lambda z: z / 800)),
}


def shuffled(told, order):
    """The same targets with classes numbered otherwise: new class k is old class order[k]."""
    if isinstance(told, tuple):
        kept = ("by_student", "share", "ways", "gates", "privacy")
        return type(told)(*(part if name in kept else shuffled(part, order)
                            for name, part in zip(told._fields, told)))
    return np.argsort(order)[told] if np.ndim(told) == 1 else told[..., order]
