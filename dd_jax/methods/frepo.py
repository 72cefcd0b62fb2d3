"""FRePo: Dataset Distillation using Neural Feature Regression (Zhou et al., NeurIPS 2022).

Kernel ridge regression on the features of a pool of ageing networks; LAMB on images and labels.

Differs from the official code:
  - the regression's Gram matrix, factor and solves are float64 (float32 there);
  - real batches are drawn without replacement within a batch, not within an epoch;
  - the pool is one stacked tree on the device, renewed inside the compiled step;
  - evaluation reports the networks' own weights at the last step; its batches are permutations of
    the set (the official stream repeats, then shuffles, so a batch may hold an image twice); its
    augmentation follows the description, see `augment.frepo`;
  - whitening: fewer images than dimensions are regularised with a warning instead of cutting the
    rank; images of 128 pixels are not whitened in strided blocks.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import optax

from dd_jax import nets, pools
from dd_jax.data import normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.evaluate.protocol import Protocol, protocol
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
)
from dd_jax.objectives import feature_ridge
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.types import RealData

_CITATION = (
    "Y. Zhou, E. Nezhadarya, J. Ba. Dataset Distillation using Neural Feature Regression. "
    "NeurIPS 2022."
)

# Steps that a network is trained on a distilled set of this many images (official evaluation).
_EVALUATION_STEPS = {10: 1000, 100: 2000, 200: 20000, 400: 5000, 500: 5000, 1000: 10000,
                     2000: 40000, 5000: 40000}


@dataclasses.dataclass(frozen=True)
class FRePo:
    """Settings of FRePo; the defaults are the official ones.

    Attributes:
      ipc: images per class.
      steps: outer steps.
      learning_rate: LAMB's peak rate, decayed by a cosine to a tenth.
      batch_size: real images per step.
      ridge: regulariser, times the mean of the kernel's diagonal.
      width, depth, norm: of the pool's width-doubling ConvNets; depth None follows the image size.
      pool_size, max_age, pool_rate: networks kept, steps until one is renewed, their Adam rate.
      labels: "learned", "fixed" or "soft".
      start: "real", "noise" or "class_means".
      normaliser: a name in `data.normalisers`; None: standardise grey images, whiten colour ones.
      flip: extend the set by its mirror images; None: colour sets of at most 500 images, which is
        where the official scripts have it.
      evaluation_width: width of the networks that test the set.
      evaluation_steps: steps they are trained for; None: the paper's, by the number of images.
    """

    ipc: int = 1
    steps: int = 500_000
    learning_rate: float = 3e-4
    batch_size: int = 1024
    ridge: float = 1e-6
    width: int = 128
    depth: int | None = None
    norm: str = "batch"
    pool_size: int = 10
    max_age: int = 100
    pool_rate: float = 3e-4
    labels: str = "learned"
    start: str = "real"
    normaliser: str | None = None
    flip: bool | None = None
    evaluation_width: int = 128
    evaluation_steps: int | None = None


def official(ipc: int) -> FRePo:
    """The settings of the official code."""
    return FRePo(ipc=ipc)


def cpu(ipc: int) -> FRePo:
    """Settings for five minutes on two CPU cores: narrow networks, few steps at a higher rate."""
    # The pool learns ten times as fast as officially: with few steps it would otherwise stay near
    # its initial features, and the set would not serve networks that train for longer.
    return FRePo(ipc=ipc, steps=2000, learning_rate=5e-3, batch_size=256, pool_rate=3e-3,
                 width=32, evaluation_width=32, evaluation_steps=None if ipc < 10 else 600)


def evaluation(config: FRePo, num_images: int, *, depth: int, flip: bool) -> Protocol:
    """The paper's evaluation: Adam with warm-up and cosine on networks without normalisation."""
    steps = config.evaluation_steps
    if steps is None:
        # The list has no value for other sizes: take that of the nearest one.
        nearest = min(_EVALUATION_STEPS, key=lambda n: abs(math.log(n / num_images)))
        steps = _EVALUATION_STEPS[nearest]
    per_epoch = -(-num_images // min(num_images, 500))
    return protocol(
        name="frepo", network="convnet_doubling", norm="none", init_style="lecun",
        depth=depth, width=config.evaluation_width, optimizer="adam", learning_rate=3e-4,
        schedule="warmup_cosine", warmup=500, final_fraction=0.01,
        epochs=-(-steps // per_epoch), batch_size=500,
        augmentation="frepo" if flip else "frepo_digits",
    )


def recipe(config: FRePo, data: RealData) -> Recipe:
    """FRePo as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set; its shape decides what the settings leave open.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "ipc", "steps", "batch_size", "width", "pool_size", "max_age",
                     "evaluation_width")
    require_rate(config, "learning_rate", "pool_rate")
    check_start(config.start, data, config.ipc)
    spec = data.spec
    colour = spec.shape[-1] > 1
    small = config.ipc * spec.num_classes <= 500
    flip = (colour and small) if config.flip is None else config.flip
    depth = default_depth(spec, config.depth)
    normaliser = normalisers(config.normaliser or ("zca" if colour else "standardise"), data)
    # Soft labels are probabilities; learned and fixed ones are centred, as in the paper.
    soft = config.labels == "soft"
    kind, scale = ("probabilities", 1.0) if soft else ("centred", (spec.num_classes / 10) ** -0.5)
    network = nets.convnet_doubling(spec, depth=depth, width=config.width, norm=config.norm)
    pool = pools.ageing_pool(network, size=config.pool_size, max_age=config.max_age,
                             optimizer=optax.adam(config.pool_rate))

    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=0.1)
    return Recipe(
        method="frepo",
        settings=dataclasses.asdict(config),
        initialise=class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind=kind,
                               scale=scale),
        parameterization=pixels(labels=config.labels),
        objective=feature_ridge(
            network, pool, batch_size=min(config.batch_size, data.labels.shape[0]),
            ridge=config.ridge, flip=flip,
        ),
        optimizer=optax.lamb(schedule),
        steps=config.steps,
        normaliser=normaliser,
        label_kind=kind,
        label_scale=scale,
        evaluation=evaluation(config, config.ipc * spec.num_classes, depth=depth, flip=colour),
        citation=_CITATION,
    )


def _published() -> dict[tuple[str, int], Any]:
    source = "FRePo, table of the paper (not re-checked against it)"
    rows = {
        "mnist": ((93.0, 0.4), (98.6, 0.1), (99.2, 0.0)),
        "fashion_mnist": ((75.6, 0.3), (86.2, 0.3), (89.6, 0.1)),
        "cifar10": ((46.8, 0.7), (65.5, 0.4), (71.7, 0.2)),
        "cifar100": ((28.7, 0.1), (42.5, 0.2), (44.3, 0.2)),
    }
    return {(name, ipc): Published(mean, std, source)
            for name, cells in rows.items() for ipc, (mean, std) in zip((1, 10, 50), cells)}


METHOD = Method(
    name="frepo",
    title="Dataset Distillation using Neural Feature Regression",
    config=FRePo,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published=_published(),
    citation=_CITATION,
)
