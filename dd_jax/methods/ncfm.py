"""NCFM: Dataset Distillation with Neural Characteristic Function: A Minmax Perspective (Wang et
al., CVPR 2025).

Characteristic functions of normalised features of real and shown images agree, under networks
somewhere between their random start and their end after training on real images; and the trained
ends recognise the shown images (calibration). Every stored image shows factor^2 images, as in IDC.

Differs from the official code:
  - the images live in model space; AdamW acts on pixels in [0, 1] all the same, and images are cut
    to the range after every step (there once per iteration);
  - the calibration's network is drawn on its own (there the trained end of the pair that the
    matching uses);
  - a learned sampler ascends once per iteration by the sum over classes, with features computed
    anew after the step (there once per class, by the same derivative pass);
  - the rate waits for a plateau of the mean loss of all steps of an iteration, those of calibration
    included, and falls one iteration earlier;
  - CIFAR-100's SGD at 10 images per class, soft labels and the features of several layers for deep
    networks are not offered;
  - a class smaller than the real batch is gone through again (the official code takes fewer);
  - networks of the bank are trained on random batches (there on passes over the set);
  - preset "cpu" takes one step for all classes, of matching and calibration together; "official"
    one for every class and term, as there;
  - evaluation: the accuracy of the last epoch, not the best one on the test set; its augmentation
    has flips whatever the data (give "idc_digits" for digits).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import optax

from dd_jax import augment, nets
from dd_jax.data import Normaliser
from dd_jax.distill.recipe import Preparation, Recipe
from dd_jax.errors import require_probability, unknown
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.formed import formed
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
    unprepared,
)
from dd_jax.objectives import weighted_sum
from dd_jax.objectives.alternating import alternating
from dd_jax.objectives.characteristic import characteristic_function
from dd_jax.objectives.class_by_class import class_by_class
from dd_jax.objectives.classification import classification
from dd_jax.objectives.discrepancy import Probe
from dd_jax.objectives.distribution_matching import distribution_matching
from dd_jax.objectives.frequencies import learned_frequencies, normal_frequencies
from dd_jax.pools.bank import bank_pool, train_bank
from dd_jax.synthetic import check_start
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.transforms.pixel_space import within_range
from dd_jax.types import Network, Objective, PyTree, RealData

_CITATION = (
    "S. Wang, Y. Yang, Z. Liu, C. Sun, X. Hu, C. He, L. Zhang. Dataset Distillation with Neural "
    "Characteristic Function: A Minmax Perspective. CVPR 2025."
)
# Frequencies per draw: of the released settings, of the paper, and of the released code.
FREQUENCIES = {"normal": 4096, "learned": 1024, "tiled": 64}


@dataclasses.dataclass(frozen=True)
class NCFM:
    """Settings of NCFM; the defaults are the official ones for small images.

    Attributes:
      ipc: stored images per class; networks see ipc * factor^2.
      factor: patches per side of a stored image.
      iterations: each is one step of the optimiser, or with `in_turn` one for every class and term.
      learning_rate, weight_decay: of AdamW on pixels in [0, 1].
      patience: iterations without a lower loss after which the rate is halved.
      in_turn: a step of the optimiser for every class, first of matching, then of calibration.
      batch_size: real images per class and step.
      sampler: of the frequencies, "normal" (every released configuration), "learned" (the paper's
        scale mixture) or "tiled" (the released code's network).
      frequencies: per class and step; None: 4096 normal, 1024 learned or 64 tiled ones.
      alpha: weight of amplitudes; phases have 1 - alpha.
      scale: of the discrepancy.
      calibration: weight of the cross-entropy; 0 leaves it out.
      bank: networks trained before the first step.
      bank_steps: of the training of each; None: as many as 60 passes over the real set have.
      bank_batch_size, bank_rate, bank_momentum, bank_decay: of their SGD, whose rate is multiplied
        by 0.2 after two thirds and after five sixths of the steps.
      mix: probability of CutMix per batch, in their training and in the evaluation.
      width, depth: of the ConvNets; depth None follows the image size.
      matching: a name in `augment.by_name`, shared by the real and shown images of a class.
      augmentation: another one, of the evaluation; "idc_digits" has no flip.
      evaluation_width, evaluation_epochs: of the networks that test the set.
    """

    ipc: int = 1
    factor: int = 2
    iterations: int = 20_000
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    patience: int = 500
    in_turn: bool = True
    batch_size: int = 1024
    sampler: str = "normal"
    frequencies: int | None = None
    alpha: float = 0.5
    scale: float = 300.0
    calibration: float = 1.0
    bank: int = 20
    bank_steps: int | None = None
    bank_batch_size: int = 128
    bank_rate: float = 0.01
    bank_momentum: float = 0.9
    bank_decay: float = 5e-4
    mix: float = 0.5
    width: int = 128
    depth: int | None = None
    matching: str = "idc_matching"
    augmentation: str = "idc"
    evaluation_width: int = 128
    evaluation_epochs: int = 2000


def official(ipc: int) -> NCFM:
    """The settings of the official code."""
    return NCFM(ipc=ipc)


def cpu(ipc: int) -> NCFM:
    """Settings for five minutes on two CPU cores: narrow networks, few and briefly trained."""
    return NCFM(ipc=ipc, iterations=1000, learning_rate=1e-2, patience=200, in_turn=False,
                batch_size=64, frequencies=256, bank=5, bank_steps=200, width=32,
                evaluation_width=32, evaluation_epochs=1000 if ipc == 1 else 200)


def _check(config: NCFM, data: RealData) -> None:
    require_positive(config, "ipc", "factor", "iterations", "patience", "batch_size", "bank",
                     "bank_batch_size", "width", "evaluation_width", "evaluation_epochs")
    require_rate(config, "learning_rate", "weight_decay", "scale", "calibration", "bank_rate",
                 "bank_momentum", "bank_decay")
    for name in ("bank_steps", "frequencies"):
        if getattr(config, name) is not None:
            require_positive(config, name)
    for name in ("alpha", "mix"):
        require_probability(name, getattr(config, name))
    if config.sampler not in FREQUENCIES:
        raise unknown("sampler", config.sampler, FREQUENCIES)
    check_start("real", data, config.ipc * config.factor**2)


def probe(config: NCFM) -> Probe:
    """The frequencies that the settings name."""
    count = config.frequencies or FREQUENCIES[config.sampler]
    if config.sampler == "normal":
        return normal_frequencies(count)
    kind = {"learned": "scale_mixture", "tiled": "tiled"}[config.sampler]
    return learned_frequencies(count, kind=kind)


def bank_training(
    config: NCFM, data: RealData, network: Network, normaliser: Normaliser
) -> Callable[[RealData, jax.Array], tuple[PyTree, PyTree]]:
    """(data, key) -> the bank's (initial, trained) ends, trained as the settings say."""
    passes = 60 * data.labels.shape[0] // config.bank_batch_size
    steps = max(1, passes) if config.bank_steps is None else config.bank_steps
    rate = optax.join_schedules(
        [optax.constant_schedule(config.bank_rate * 0.2**drop) for drop in range(3)],
        [2 * steps // 3, 5 * steps // 6],
    )
    optimizer = decayed_momentum(rate, momentum=config.bank_momentum,
                                 weight_decay=config.bank_decay)

    def compute(data: RealData, key: jax.Array) -> tuple[PyTree, PyTree]:
        return train_bank(
            network, data, config.bank, normaliser=normaliser, key=key, steps=steps,
            batch_size=config.bank_batch_size, optimizer=optimizer, mix=config.mix,
            augmentation=augment.by_name("idc_training", data.spec.shape),
        )

    return compute


def matched_and_calibrated(
    config: NCFM, network: Network, bank: tuple[PyTree, PyTree], shape: tuple, classes: int
) -> Objective:
    """NCFM's two terms under the networks of a bank, jointly or in turn."""
    augmentation = augment.by_name(config.matching, shape)
    discrepancy = characteristic_function(probe(config), alpha=config.alpha, beta=1 - config.alpha)
    matching = distribution_matching(
        network, bank_pool(bank), discrepancy, batch_size=config.batch_size, scale=config.scale,
        augmentation=augmentation,
    )
    trained = bank_pool(bank, interpolated=False)
    calibration = classification(network, trained, augmentation=augmentation)
    if config.in_turn:
        matching, calibration = class_by_class(matching), class_by_class(calibration)
    if not config.calibration:
        return matching
    if not config.in_turn:
        return weighted_sum([matching, calibration], [1.0, config.calibration])
    weighted = weighted_sum([calibration], [config.calibration])
    return alternating([matching, weighted], [classes, classes])


def recipe(config: NCFM, data: RealData) -> Recipe:
    """NCFM as a composition of the library's parts; its bank of networks is trained by `prepare`.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe` that `distill.prepared` completes.

    Raises:
      ConfigError: a setting that cannot be.
    """
    _check(config, data)
    augment.by_name(config.matching, data.spec.shape)  # a wrong name fails before the training
    spec = data.spec
    depth = default_depth(spec, config.depth)
    network = nets.convnet(spec, depth=depth, width=config.width)
    probe(config)  # what cannot be drawn fails before the training
    stored = formed(data, ipc=config.ipc, factor=config.factor)
    normaliser = stored["normaliser"]

    def complete(recipe: Recipe, bank: tuple[PyTree, PyTree]) -> Recipe:
        objective = matched_and_calibrated(config, network, bank, spec.shape, spec.num_classes)
        return dataclasses.replace(recipe, objective=objective)

    terms = 2 if config.calibration else 1
    turns = terms * spec.num_classes if config.in_turn else 1  # steps of one iteration
    adamw = optax.chain(
        optax.adamw(config.learning_rate, weight_decay=config.weight_decay),
        optax.contrib.reduce_on_plateau(0.5, patience=config.patience, accumulation_size=turns),
    )
    return Recipe(
        **stored,
        method="ncfm",
        settings=dataclasses.asdict(config),
        objective=unprepared("ncfm", "bank of networks"),
        optimizer=within_range(adamw, normaliser),
        steps=config.iterations * turns,
        turns=turns,
        evaluation=protocol(
            name="ncfm", depth=depth, width=config.evaluation_width, optimizer="adamw",
            learning_rate=1e-3, weight_decay=0.01, schedule="fifths",
            epochs=config.evaluation_epochs, batch_size=128, augmentation=config.augmentation,
            cutmix=config.mix,
        ),
        prepare=Preparation(bank_training(config, data, network, normaliser), complete),
        citation=_CITATION,
    )


_SOURCE = "NCFM, as tabulated in the official repository"
METHOD = Method(
    name="ncfm",
    title="Dataset Distillation with Neural Characteristic Function: A Minmax Perspective",
    config=NCFM,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("cifar10", 1): Published(49.5, 0.3, _SOURCE),
        ("cifar10", 10): Published(71.8, 0.3, _SOURCE),
        ("cifar10", 50): Published(77.4, 0.3, _SOURCE),
        ("cifar100", 1): Published(34.4, 0.5, _SOURCE),
        ("cifar100", 10): Published(48.7, 0.3, _SOURCE),
        ("cifar100", 50): Published(54.7, 0.2, _SOURCE),
    },
    citation=_CITATION,
)
