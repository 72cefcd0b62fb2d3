"""RaT-BPTT's loop, whatever a set is stored as: Adam inside, a window of its steps, capped Adam."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dd_jax import augment, pools
from dd_jax.data import Normaliser
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import require_above_zero, unknown
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import default_depth
from dd_jax.methods.unrolling import (
    UnrollingSettings,
    adjoint_of,
    check,
    lighter,
    network_of,
)
from dd_jax.objectives import RandomWindow, unrolled
from dd_jax.train import student
from dd_jax.train.plans import Plan
from dd_jax.transforms.capped_gradient import capped_gradient
from dd_jax.transforms.pixel_space import kept_between
from dd_jax.types import Parameterization, RealData, SyntheticSet


@dataclasses.dataclass(frozen=True)
class WindowedSettings(UnrollingSettings):
    """Settings of RaT-BPTT's loop; the defaults are for CIFAR-10.

    Attributes:
      window, inner_steps, first_step: W, T and the smallest n0, see `objectives.RandomWindow`.
      window_mode: "random", "last" or "forward".
      patience: looks, one every `hold` steps, without a new lowest loss after which a "forward"
        window goes on; the official number is for long runs.
      hold: outer steps that a window stays.
      inner_rate, adam_root: of the inner Adam, and the constant in its root.
      image_rate, label_rate: of the Adam on images and on learned labels.
      cap: gradients of images are cut at so many times the usual norm.
      labels: "fixed" or "learned", at least 0.
      augmentation: of synthetic and real images, a name in `augment.by_name`.
      evaluation_steps: of the networks that test the set.
      evaluation_seeds: networks that test it.
    """

    batch_size: int = 5000
    normaliser: str = "zca_per_image"
    window: int = 60
    inner_steps: int = 200
    first_step: int = 0
    window_mode: str = "random"
    patience: int = 60
    hold: int = 10
    inner_rate: float = 1e-3
    adam_root: float = 1e-12
    image_rate: float = 1e-3
    label_rate: float = 1e-3
    cap: float = 2.0
    labels: str = "fixed"
    augmentation: str = "flip_rotate"
    evaluation_steps: int = 1000
    evaluation_seeds: int = 8


def windowed_recipe(
    config: Any,
    data: RealData,
    *,
    method: str,
    citation: str,
    build: Callable[[Any, RealData], Recipe],
    parameterization: Parameterization,
    plan: Plan,
    batch: int,
    images: int,
    order: str,
    normaliser: Normaliser,
    initialise: Callable[[RealData, jax.Array], SyntheticSet],
    **fields: Any,
) -> Recipe:
    """A method of this loop as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.
      method, citation: of the recipe.
      build: the method's own (config, data) -> Recipe.
      parameterization: how the set is stored.
      plan: which of its images an inner step takes; `batch` of them.
      images: how many the set shows.
      order: of the images in the test, see `Protocol`.
      normaliser: from stored images to model space.
      initialise: the start of the set.
      **fields: of the `Recipe`, instead of the usual ones.

    Raises:
      ConfigError: a setting that cannot be.
    """
    spec = data.spec
    network = network_of(config, spec)
    augmentation = augment.by_name(config.augmentation, spec.shape)
    learner = student(
        network, steps=config.inner_steps, augmentation=augmentation, plan=plan,
        optimizer=optax.scale_by_adam(eps_root=config.adam_root),
        adjoint=adjoint_of(config, plain=False))
    window = RandomWindow(config.window, config.inner_steps, config.first_step,
                          config.window_mode, config.hold, config.patience)
    free = fields.get("label_kind") == "logits"  # free numbers, not probabilities
    usual = dict(
        method=method,
        settings=dataclasses.asdict(config),
        initialise=initialise,
        parameterization=parameterization,
        objective=unrolled(learner, pool=pools.fresh_pool(network), window=window,
                           augmentation=augmentation, rate=config.inner_rate,
                           batch_size=min(config.batch_size, data.labels.shape[0])),
        optimizer={
            "images": optax.chain(capped_gradient(config.cap), optax.adam(config.image_rate)),
            "labels": optax.chain(optax.adam(config.label_rate), kept_between(0.0, jnp.inf))},
        steps=config.steps,
        normaliser=normaliser,
        evaluation=protocol(
            name=method, depth=default_depth(spec, config.depth), width=config.width,
            optimizer="adam", learning_rate=config.inner_rate, schedule="constant", order=order,
            batch_size=batch, epochs=-(-config.evaluation_steps // -(-images // batch)),
            loss="free_cross_entropy" if free else "auto", seeds=config.evaluation_seeds),
        lighter=lighter(config, data, build, "recursive"),
        citation=citation,
    )
    return Recipe(**{**usual, **fields})


def check_windowed(config: Any) -> None:
    """Refuses settings of the loop that cannot be.

    Raises:
      ConfigError: as said.
    """
    check(config, whole=("window", "inner_steps", "hold", "patience", "evaluation_steps",
                         "evaluation_seeds"),
          rates=("inner_rate", "adam_root", "image_rate", "label_rate"))
    require_above_zero("cap", config.cap, why="no gradient of an image would pass", example=2.0)
    if config.labels not in ("fixed", "learned"):
        raise unknown("labels", config.labels, ("fixed", "learned"))
