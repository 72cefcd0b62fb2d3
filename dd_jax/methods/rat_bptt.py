"""RaT-BPTT: Embarrassingly Simple Dataset Distillation (Feng, Vedantam and Kempe, ICLR 2024).

A network classifies real images after some steps of Adam on the set; the derivative goes through a
window of these steps, which lies elsewhere from time to time.

Differs from the official code:
  - Adam's second moment has a small constant inside the root, without which its derivative is not
    finite at zero; networks of the test have none;
  - real batches are drawn without replacement within a batch, not within an epoch;
  - a forward window goes on when the loss on real training images stands still (there the loss on
    test images);
  - gradients are cut at twice the moving average of the norms before them, the first not at all;
    which average is meant is our reading;
  - networks of the test are trained for a given number of steps (there the best of 300, 600, 1000
    and 3000 on the test set), without augmentation;
  - boosting, blocks of images that are added beside frozen or slower ones, is `distill.boosted`;
  - on grey images the presets keep the settings for CIFAR-10.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from dd_jax.data import Normaliser, normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError
from dd_jax.methods.record import Method, Published, require_positive_if_given
from dd_jax.methods.unrolling import check_images
from dd_jax.methods.windowed import WindowedSettings, check_windowed, windowed_recipe
from dd_jax.synthetic import class_start, pixels
from dd_jax.train import class_rows
from dd_jax.types import RealData, SyntheticSet

_CITATION = (
    "Y. Feng, R. Vedantam, J. Kempe. Embarrassingly Simple Dataset Distillation. ICLR 2024."
)


@dataclasses.dataclass(frozen=True)
class RaTBPTT(WindowedSettings):
    """Settings of RaT-BPTT, beside those of `WindowedSettings`; the defaults are for CIFAR-10.

    Attributes:
      start: "real", "noise" or "class_means".
      per_class: images of each class in an inner step, drawn anew; None or more than there are for
        all.
      classes: classes in an inner step, drawn anew; None for all. Needs per_class=1.
      unit_norm: every image starts with the norm 1, as whitened real ones have about it.
    """

    steps: int = 600_000
    start: str = "noise"
    per_class: int | None = 10
    classes: int | None = None
    unit_norm: bool = True


def official(ipc: int) -> RaTBPTT:
    """The official settings for CIFAR-10, published for ten images per class."""
    return RaTBPTT(ipc=ipc)


def cpu(ipc: int) -> RaTBPTT:
    """Settings for five minutes on one or two CPU cores."""
    one = ipc == 1
    return RaTBPTT(
        ipc=ipc, steps=400 if one else 250, batch_size=256, window=15 if one else 10,
        inner_steps=45 if one else 30, hold=1, per_class=2, inner_rate=3e-3, image_rate=0.02,
        normaliser="standardise", start="real", unit_norm=False, augmentation="none", width=32,
        evaluation_steps=300, evaluation_seeds=5)


def recipe(config: RaTBPTT, data: RealData) -> Recipe:
    """RaT-BPTT as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    _check(config, data)
    classes = data.spec.num_classes
    per_class = min(config.ipc, config.per_class or config.ipc)
    normaliser = normalisers(config.normaliser, data)
    return windowed_recipe(
        config, data, method="rat_bptt", citation=_CITATION, build=recipe, normaliser=normaliser,
        parameterization=pixels(labels=config.labels), initialise=_start(config, normaliser),
        plan=class_rows(classes, per_class, chosen=config.classes), order="classes",
        batch=per_class * (config.classes or classes), images=config.ipc * classes,
        label_kind="logits" if config.labels == "learned" else "one_hot",
    )


def _start(config: RaTBPTT, normaliser: Normaliser):
    plain = class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind="one_hot")
    if not config.unit_norm:
        return plain

    def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
        given = plain(data, key)
        norms = jnp.sqrt(jnp.sum(given.images**2, axis=(1, 2, 3), keepdims=True))
        return given._replace(images=given.images / jnp.where(norms > 0, norms, 1.0))

    return initialise


def _check(config: RaTBPTT, data: RealData) -> None:
    check_images(config, data)
    check_windowed(config)
    require_positive_if_given(config, "per_class", "classes")
    if config.classes is not None and config.ipc > 1 and config.per_class != 1:
        raise ConfigError(f"classes is {config.classes} and per_class {config.per_class}",
                          fix="pass per_class=1 where a step takes some classes only")


_SOURCE = "RaT-BPTT, as tabulated by later work"
METHOD = Method(
    name="rat_bptt",
    title="Embarrassingly Simple Dataset Distillation",
    config=RaTBPTT,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(53.2, 0.7, _SOURCE),
        ("cifar10", 10): Published(69.4, 0.4, _SOURCE),
        ("cifar10", 50): Published(75.3, 0.3, _SOURCE),
        ("cifar100", 1): Published(35.3, 0.4, _SOURCE),
        ("cifar100", 10): Published(47.5, 0.2, _SOURCE),
        ("cifar100", 50): Published(50.6, 0.2, _SOURCE),
        ("tiny_imagenet", 1): Published(20.1, 0.3, _SOURCE),
        ("tiny_imagenet", 10): Published(24.4, 0.2, _SOURCE),
    },
    citation=_CITATION,
)
