"""KIP: kernel inducing points (Nguyen, Chen and Lee, ICLR 2021; Nguyen et al., NeurIPS 2021).

Kernel ridge regression with the tangent kernel of an infinitely wide network; Adam on the pixels.

Differs from the official code:
  - K_ss and the solve are float64, the kernel with the real batch float32 (all float64 there);
  - no augmentation: the ranges of the authors' are not published;
  - whitening is fitted on all training images (the authors keep the last 5,000 for validation),
    and fewer images than dimensions are regularised with a warning instead of cutting the rank;
  - a fixed number of steps without choosing a checkpoint by validation;
  - networks that test the set are ConvNet3 (no convolution before the first block), and their
    learning rate is a constant over the width: the authors estimate the largest stable rate from
    the empirical tangent kernel of each network, see `STABLE_RATE`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from dd_jax.data import normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.errors import unknown
from dd_jax.evaluate import Protocol, ReadOut, protocol
from dd_jax.methods import frepo
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
)
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.types import DataSpec, Kernel, RealData

_CITATION = (
    "T. Nguyen, R. Novak, L. Xiao, J. Lee. Dataset Distillation with Infinitely Wide Convolutional "
    "Networks. NeurIPS 2021."
)
# The largest stable learning rate of a network of width w is near 2 STABLE_RATE / w for the paper's
# loss: 2 n K (1 + momentum) / lambda_max of the empirical tangent kernel was 0.98 / w to 2.6 / w on
# 50 standardised Fashion-MNIST images, for widths 32 to 128 and two initialisations of each.
STABLE_RATE = 0.5
LABELS = ("fixed", "learned")
EVALUATIONS = ("kip", "frepo")


@dataclasses.dataclass(frozen=True)
class KIP:
    """Settings of KIP; the defaults are the official ones.

    Attributes:
      ipc: images per class.
      steps: outer steps.
      learning_rate: Adam's, constant, for images and labels.
      batch_size: real images per step, of every class the same number (rounded down) and no more
        than its largest class has.
      ridge: regulariser, times the mean of the kernel's diagonal.
      kernel: a name in `kernels.named`: "convnet", "convnet3", "fc1" to "fc3", "myrtle5", ...
      labels: "fixed" or "learned".
      start: "real", "noise" or "class_means".
      normaliser: a name in `data.normalisers`; None: standardise grey images, whiten colour ones
        after bringing each to zero mean and unit norm.
      evaluation: "kip" or "frepo", the protocol of the networks that test the set.
      evaluation_width: their width.
      evaluation_steps: steps they are trained for; None: the protocol's own.
    """

    ipc: int = 1
    steps: int = 50_000
    learning_rate: float = 4e-2
    batch_size: int = 5000
    ridge: float = 1e-6
    kernel: str = "convnet"
    labels: str = "fixed"
    start: str = "real"
    normaliser: str | None = None
    evaluation: str = "kip"
    evaluation_width: int = 1024
    evaluation_steps: int | None = None


def official(ipc: int) -> KIP:
    """The settings of the official code."""
    return KIP(ipc=ipc)


def cpu(ipc: int) -> KIP:
    """Settings for five minutes on two CPU cores: a fully connected kernel, the common networks."""
    return KIP(ipc=ipc, steps=300, kernel="fc3", batch_size=5000 if ipc <= 10 else 2000,
               evaluation="frepo", evaluation_width=32,
               evaluation_steps=None if ipc < 10 else 600)


def kernel_by_name(name: str) -> Kernel:
    """The tangent kernel of a named architecture, evaluated block by block."""
    from dd_jax import kernels

    return kernels.blockwise(kernels.named(name, kind="ntk"))


def normaliser_name(given: str | None, spec: DataSpec) -> str:
    """The papers' preprocessing where none is given: whitening for colour images only."""
    return given or ("zca_per_image" if spec.shape[-1] > 1 else "standardise")


def balanced_batch(batch_size: int, data: RealData) -> int:
    """The largest class-balanced batch of at most `batch_size` that repeats no class in full."""
    classes = data.spec.num_classes
    return classes * max(1, min(batch_size // classes, int(data.class_counts.max())))


def evaluation(config: Any, spec: DataSpec) -> Protocol:
    """The paper's protocol, or FRePo's for comparisons.

    The paper's minimises mean_ik 1/2 (f(x_i) - y_ik)^2 + 1/2 1e-3 ||w||^2 by SGD; the protocol's
    loss is twice that, hence half the rate and twice the decay.

    Args:
      config: settings with ipc, evaluation, evaluation_width and evaluation_steps.
      spec: of the real data.

    Returns:
      A `Protocol`.

    Raises:
      ConfigError: an unknown protocol, or steps below 1.
    """
    if config.evaluation not in EVALUATIONS:
        raise unknown("evaluation protocol", config.evaluation, EVALUATIONS)
    if config.evaluation_steps is not None:
        require_positive(config, "evaluation_steps")
    depth, size = default_depth(spec), config.ipc * spec.num_classes
    if config.evaluation == "frepo":
        settings = frepo.FRePo(ipc=config.ipc, evaluation_width=config.evaluation_width,
                               evaluation_steps=config.evaluation_steps)
        return frepo.evaluation(settings, size, depth=depth, flip=spec.shape[-1] > 1)
    steps = 5000 if config.evaluation_steps is None else config.evaluation_steps
    return protocol(
        name="kip", network="convnet", depth=depth, width=config.evaluation_width, norm="none",
        init_style="gaussian", first_padding=1, learning_rate=STABLE_RATE / config.evaluation_width,
        momentum=0.9, weight_decay=2e-3, schedule="warmup_cosine", warmup=0, final_fraction=0.0,
        epochs=max(1, steps // -(-size // 100)), batch_size=100, loss="mean_squared_error",
    )


def recipe(config: KIP, data: RealData) -> Recipe:
    """KIP as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    require_positive(config, "ipc", "steps", "batch_size", "evaluation_width")
    require_rate(config, "learning_rate")
    if config.labels not in LABELS:
        raise unknown("label head", config.labels, LABELS)
    check_start(config.start, data, config.ipc)
    spec = data.spec
    normaliser = normalisers(normaliser_name(config.normaliser, spec), data)

    return Recipe(
        method="kip",
        settings=dataclasses.asdict(config),
        initialise=class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind="centred"),
        parameterization=pixels(labels=config.labels),
        objective=kernel_ridge(
            kernel_by_name(config.kernel), ridge=config.ridge,
            batch_size=balanced_batch(config.batch_size, data),
        ),
        optimizer=optax.adam(config.learning_rate),
        steps=config.steps,
        normaliser=normaliser,
        label_kind="centred",
        evaluation=evaluation(config, spec),
        read_out=ReadOut(config.kernel, ridge=config.ridge),
        citation=_CITATION,
    )


def _table(source: str, rows: dict[str, tuple]) -> dict[tuple[str, int], Published]:
    return {(name, ipc): Published(mean, std, source)
            for name, cells in rows.items() for ipc, (mean, std) in zip((1, 10, 50), cells)}


PUBLISHED = _table("KIP, networks, as tabulated in FRePo (not re-checked against it)", {
    "mnist": ((90.1, 0.1), (97.5, 0.0), (98.3, 0.1)),
    "fashion_mnist": ((73.5, 0.5), (86.8, 0.1), (88.0, 0.1)),
    "svhn": ((57.3, 0.1), (75.0, 0.1), (80.5, 0.1)),
    "cifar10": ((49.9, 0.2), (62.7, 0.3), (68.6, 0.2)),
    "cifar100": ((15.7, 0.2), (28.3, 0.1)),
})
READ_OUT_PUBLISHED = _table("KIP, ConvNet kernel regression (not re-checked against the paper)", {
    "mnist": ((97.3, 0.1), (99.1, 0.1), (99.4, 0.1)),
    "fashion_mnist": ((82.9, 0.2), (91.0, 0.1), (92.4, 0.1)),
    "svhn": ((64.3, 0.4), (81.1, 0.6), (84.3, 0.1)),
    "cifar10": ((64.7, 0.2), (75.6, 0.2), (80.6, 0.1)),
    "cifar100": ((34.9, 0.1), (49.5, 0.3)),
})
METHOD = Method(
    name="kip",
    title="Dataset Distillation with Infinitely Wide Convolutional Networks",
    config=KIP,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published=PUBLISHED,
    published_read_out=READ_OUT_PUBLISHED,
    citation=_CITATION,
)
