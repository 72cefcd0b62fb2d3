"""RFAD: Efficient Dataset Distillation using Random Feature Approximation (Loo et al., 2022).

Kernel ridge regression on the features of random networks, new ones in every step; AdaBelief on
the images, their labels, a matrix that all images are multiplied by, and a temperature.

Differs from the official code:
  - the real images by which the best set is found are distinct and drawn from all alike (there as
    many of each class, with replacement); the last step is looked at, too;
  - the learned labels and the Platt loss are flags there, off unless given; both are on here;
  - the regression's Gram matrix, factor and solves are float64, predictions from its weights
    float32 (there the Gram matrix is float32, the predictions float64);
  - a step's 5,120 real images are distinct; there four batches of 1,280 may overlap;
  - networks that test the set are trained for a fixed number of steps (official: at most 20,000,
    until 500 pass without a better accuracy on such images, which is then the one kept);
    sets of any size go whole (there up to 512 images; larger ones in random batches of 513).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import optax

from dd_jax import nets, pools
from dd_jax.data import Normaliser, normalisers, zca
from dd_jax.distill.recipe import Recipe
from dd_jax.distill.selection import Selection
from dd_jax.evaluate import Protocol, ReadOut, protocol
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_positive_if_given,
    require_rate,
)
from dd_jax.objectives.random_feature_ridge import random_feature_ridge
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.synthetic.preconditioned import preconditioned
from dd_jax.types import DataSpec, Objective, RealData

_CITATION = (
    "N. Loo, R. Hasani, A. Amini, D. Rus. Efficient Dataset Distillation using Random Feature "
    "Approximation. NeurIPS 2022."
)

# Learning rate, output scale and pull to the initial weights with which networks are trained on a
# distilled set of 1, 10 and 50 images per class (official evaluation).
_EVALUATION = {
    "mnist": ((1e-3, 8.0, 1e-3), (1e-2, 8.0, 1e-3), (1e-2, 8.0, 0.0)),
    "fashion_mnist": ((1e-3, 8.0, 0.0), (1e-2, 8.0, 1e-3), (1e-3, 2.0, 0.0)),
    "svhn": ((1e-3, 16.0, 0.0), (1e-2, 8.0, 0.0), (1e-2, 2.0, 0.0)),
    "cifar10": ((1e-3, 8.0, 0.0), (1e-3, 2.0, 0.0), (1e-2, 2.0, 0.0)),
    "cifar100": ((1e-1, 8.0, 0.0), (1e-1, 2.0, 0.0)),
}


@dataclasses.dataclass(frozen=True)
class RFAD:
    """Settings of RFAD; the defaults are the official ones.

    Attributes:
      ipc: images per class.
      steps: outer steps.
      learning_rate: AdaBelief's, for images and labels.
      preconditioner_rate, temperature_rate: for the matrix and the temperature.
      batch_size: real images per step.
      ridge: regulariser, times the mean of the kernel's diagonal.
      networks: random ConvNets in each step.
      width, depth: of these; depth None follows the image size.
      loss: "platt" or "squared_error", see `objectives.random_feature_ridge`.
      labels: "learned", "fixed" or "soft".
      select_every: steps between two looks for the best set, by the loss of 16 networks on 5,000
        real images (10,000 of a hundred classes), equal in every look; None: the last set is kept.
      patience: a run ends at the first look more than so many steps after the best; None: never.
      precondition: whether the images are multiplied by a learned matrix.
      start: "real", "noise" or "class_means".
      normaliser: a name in `data.normalisers`; None: standardise grey images, whiten colour ones
        without centring, those of SVHN after bringing each to zero mean and unit norm.
      evaluation_width: width of the networks that test the set.
      evaluation_steps: steps they are trained for, each on the whole set.
      evaluation_rate: their learning rate; None: the paper's, by data and images per class.
    """

    ipc: int = 1
    steps: int = 100_000
    learning_rate: float = 1e-3
    preconditioner_rate: float = 5e-5
    temperature_rate: float = 1e-2
    batch_size: int = 5120
    ridge: float = 5e-3
    networks: int = 8
    width: int = 256
    depth: int | None = None
    loss: str = "platt"
    labels: str = "learned"
    select_every: int | None = 40
    patience: int | None = 1000
    precondition: bool = True
    start: str = "real"
    normaliser: str | None = None
    evaluation_width: int = 1024
    evaluation_steps: int = 20_000
    evaluation_rate: float | None = None


def official(ipc: int) -> RFAD:
    """The settings of the official code."""
    return RFAD(ipc=ipc)


def cpu(ipc: int) -> RFAD:
    """Settings for five minutes on two CPU cores: few narrow networks, few steps at a higher rate.

    The last set is kept: a look for the best one costs as much as twenty steps.
    """
    # Narrow networks, trained for few steps, move as far as wide ones only at a higher rate.
    return RFAD(ipc=ipc, steps=400, learning_rate=1e-2, temperature_rate=3e-2, batch_size=1024,
                networks=4, width=32, select_every=None, precondition=False,
                evaluation_steps=300, evaluation_width=128 if ipc < 10 else 64,
                evaluation_rate=0.03 if ipc < 10 else 0.1)


def _normaliser(config: RFAD, data: RealData) -> Normaliser:
    if config.normaliser is not None:
        return normalisers(config.normaliser, data)
    if data.spec.shape[-1] == 1:
        return normalisers("standardise", data)
    return zca(data, centre=False, per_image=data.spec.name == "svhn")


def evaluation(config: RFAD, spec: DataSpec, *, depth: int) -> Protocol:
    """The paper's evaluation: wide Gaussian networks, centred, by full-batch gradient descent.

    The loss is mean_ik (f(x_i) - f_0(x_i) - s y_ik)^2 / s^2 + pull ||w - w_0||^2, with f_0 and w_0
    the network at initialisation. Sets without a row in the paper's table take that of
    Fashion-MNIST if grey and of CIFAR-10 if not, and the number of images per class nearest to
    theirs.
    """
    other = "fashion_mnist" if spec.shape[-1] == 1 else "cifar10"
    rows = dict(zip((1, 10, 50), _EVALUATION.get(spec.name, _EVALUATION[other])))
    nearest = min(rows, key=lambda ipc: abs(math.log(ipc / config.ipc)))
    rate, scale, pull = rows[nearest]
    if config.evaluation_rate is not None:
        rate = config.evaluation_rate
    return protocol(
        name="rfad", network="convnet", depth=depth, width=config.evaluation_width, norm="none",
        init_style="gaussian", first_padding=1, learning_rate=rate, weight_decay=0.0,
        schedule="constant", epochs=config.evaluation_steps,
        batch_size=config.ipc * spec.num_classes, loss="mean_squared_error", centre_outputs=True,
        output_scale=scale, pull=pull,
    )


def recipe(config: RFAD, data: RealData) -> Recipe:
    """RFAD as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set; its shape decides what the settings leave open.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "ipc", "steps", "batch_size", "networks", "width", "evaluation_width",
                     "evaluation_steps")
    require_positive_if_given(config, "select_every", "patience")
    require_rate(config, "learning_rate", "preconditioner_rate", "temperature_rate")
    check_start(config.start, data, config.ipc)
    spec = data.spec
    depth = default_depth(spec, config.depth)
    normaliser = _normaliser(config, data)
    kind = "probabilities" if config.labels == "soft" else "centred"
    network = nets.convnet(spec, depth=depth, width=config.width, norm="none",
                           init_style="gaussian", first_padding=1)

    def adabelief(rate: float) -> optax.GradientTransformation:
        return optax.adabelief(rate, eps=1e-16, eps_root=1e-16)

    def regression(networks: int, batch_size: int) -> Objective:
        return random_feature_ridge(
            network, pools.fresh_pool(network), networks=networks, ridge=config.ridge,
            batch_size=min(batch_size, data.labels.shape[0]), loss=config.loss,
        )

    selection = None
    if config.select_every is not None:
        images = spec.num_classes * (100 if spec.num_classes >= 100 else 500)
        selection = Selection(regression(16, images), config.select_every, config.patience)
    stored = pixels(labels=config.labels)
    return Recipe(
        method="rfad",
        settings=dataclasses.asdict(config),
        initialise=class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind=kind,
                               temperature=config.loss == "platt"),
        parameterization=preconditioned(stored) if config.precondition else stored,
        objective=regression(config.networks, config.batch_size),
        selection=selection,
        optimizer={
            "images": adabelief(config.learning_rate),
            "labels": adabelief(config.learning_rate),
            "preconditioner": adabelief(config.preconditioner_rate),
            "temperature": adabelief(config.temperature_rate),
        },
        steps=config.steps,
        normaliser=normaliser,
        label_kind=kind,
        evaluation=evaluation(config, spec, depth=depth),
        read_out=ReadOut(f"convnet{depth}", kind="nngp", ridge=config.ridge),
        citation=_CITATION,
    )


def _published() -> dict[tuple[str, int], Any]:
    source = "RFAD, table of the paper, networks (not re-checked against it)"
    rows = {
        "mnist": ((94.4, 1.5), (98.5, 0.1), (98.8, 0.1)),
        "fashion_mnist": ((78.6, 1.3), (87.0, 0.5), (88.8, 0.4)),
        "svhn": ((52.2, 2.2), (74.9, 0.4), (80.9, 0.3)),
        "cifar10": ((53.6, 1.2), (66.3, 0.5), (71.1, 0.4)),
        "cifar100": ((26.3, 1.1), (33.0, 0.3)),
    }
    return {(name, ipc): Published(mean, std, source)
            for name, cells in rows.items() for ipc, (mean, std) in zip((1, 10, 50), cells)}


METHOD = Method(
    name="rfad",
    title="Efficient Dataset Distillation using Random Feature Approximation",
    config=RFAD,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published=_published(),
    citation=_CITATION,
)
