"""WMDD: Dataset Distillation via the Wasserstein Metric (Liu et al., ICCV 2025).

A teacher is trained on the real images. The synthetic images of a class start as noise; Adam makes
their features the Wasserstein barycentre of the class's real ones, and the statistics of the
teacher's batch normalisations those of the class. The teacher's probabilities are their labels.

Differs from the official code:
  - soft labels are those of the finished images, one for each; the paper stores the teacher's
    logits for 300 epochs of crops and CutMix (fast knowledge distillation), which is not offered.
    `labels="hard"` leaves the classes;
  - all blocks of classes take their steps together, each with its own draws; as they share
    nothing, that is what they do one after another. The last block may be smaller;
  - plans of the barycentre are entropic (there exact). With equal weights its positions follow the
    plans all the way, 20 times (there a fifth of the way, at most ten); with `learn_weights` the
    weights are the best ones for the positions (there mirror descent), and a student does not weigh
    images by them;
  - the teacher's random crops are cut to the image where they leave it (there drawn again). Its
    running statistics are averages over batches after the training, since the library's batch
    normalisation forgets faster than the usual one;
  - ResNet-18 has a 3x3 stem without pooling, and images keep their size (there 224 pixels);
  - images are not stored as JPEG;
  - evaluation: the accuracy of the last epoch (there the best of every tenth). Labels and outputs
    are softened alike, which is the paper's divergence at its temperature; augmentation and CutMix
    change images and mix labels, and the teacher is not asked again.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from dd_jax.augment.block import crop_flip_roll
from dd_jax.backend import in_chunks
from dd_jax.data import Normaliser, gather, grey, normalise, rows_uniform, standardise
from dd_jax.distill.recipe import Preparation, Recipe
from dd_jax.errors import require_above_zero, require_probability, require_whole, unknown
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import (
    Method,
    Published,
    default_depth,
    require_positive,
    require_rate,
    unprepared,
)
from dd_jax.methods.teacher import teacher_network
from dd_jax.objectives.barycentre_matching import DISTANCES, barycentre_matching
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.train.class_targets import class_targets
from dd_jax.train.teachers import train_supervised
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.transforms.pixel_space import kept_between
from dd_jax.types import Augmentation, Network, PyTree, RealData, SyntheticSet

_CITATION = (
    "H. Liu, Y. Li, T. Xing, P. Wang, V. Dalal, L. Li, J. He, H. Wang. Dataset Distillation via "
    "the Wasserstein Metric. ICCV 2025."
)
LABELS = ("soft", "hard")
_SETTLING = 50  # batches whose statistics are averaged after the training


@dataclasses.dataclass(frozen=True)
class WMDD:
    """Settings of WMDD; the defaults are the official ones for ImageNet and its parts.

    Attributes:
      ipc: images per class.
      steps: of Adam, whose rate falls to 0 by a cosine.
      learning_rate: its first rate, in model space; 0.1 for Tiny-ImageNet.
      statistics_weight: of the batch-normalisation statistics; 500 for Tiny-ImageNet.
      label_weight: of the cross-entropy; 1 in the released script, 0 in the paper.
      distance: of features, "unsquared" (released) or "squared" (paper).
      learn_weights: weights of the barycentre; False in the released script, True in the paper.
      block_images: images of the classes that share a distance and an augmentation.
      area, roll, mirror_views: smallest area of the crops, largest roll in pixels (None: a seventh
        of a side, 32 of 224) and mirroring, through which the teacher sees the images; without the
        roll also those that it is trained on.
      teacher: "resnet18" or "convnet", with `teacher_width` channels in its first stage.
      teacher_epochs, teacher_batch_size, teacher_rate, teacher_decay: of its SGD of momentum 0.9,
        whose rate falls to 0 by a cosine.
      labels: "soft" or "hard".
      temperature: of the soft labels and, in the evaluation, of the students' outputs.
      augmentation, mix: of the evaluation: a name in `augment.by_name`, and the probability of
        CutMix per batch.
      evaluation_norm, evaluation_width, evaluation_epochs: of the networks that test the set; they
        have the teacher's architecture.
    """

    ipc: int = 10
    steps: int = 2000
    learning_rate: float = 0.25
    statistics_weight: float = 10.0
    label_weight: float = 1.0
    distance: str = "unsquared"
    learn_weights: bool = False
    block_images: int = 100
    area: float = 0.08
    roll: int | None = None
    mirror_views: bool = True
    teacher: str = "resnet18"
    teacher_width: int = 64
    teacher_epochs: float = 50
    teacher_batch_size: int = 32
    teacher_rate: float = 0.025
    teacher_decay: float = 1e-4
    labels: str = "soft"
    temperature: float = 20.0
    augmentation: str = "dsa"
    mix: float = 1.0
    evaluation_norm: str = "batch"
    evaluation_width: int = 64
    evaluation_epochs: int = 300


def official(ipc: int) -> WMDD:
    """The settings of the official code, for images of 224 pixels."""
    return WMDD(ipc=ipc)


def cpu(ipc: int) -> WMDD:
    """Settings for five minutes on two CPU cores: a narrow ConvNet as the teacher, whole images."""
    return WMDD(ipc=ipc, steps=2000 if ipc == 1 else 500, area=1.0, roll=0, mirror_views=False,
                teacher="convnet", teacher_width=32, teacher_epochs=2, teacher_batch_size=128,
                teacher_rate=0.1, temperature=4.0, mix=0.0, evaluation_norm="instance",
                evaluation_width=32, evaluation_epochs=1000 if ipc == 1 else 300)


def _check(config: WMDD, data: RealData) -> None:
    require_positive(config, "ipc", "steps", "block_images", "teacher_width", "teacher_batch_size",
                     "evaluation_width", "evaluation_epochs")
    require_rate(config, "learning_rate", "statistics_weight", "label_weight", "teacher_epochs",
                 "teacher_rate", "teacher_decay", "temperature")
    require_probability("mix", config.mix)
    require_whole("roll", 0 if config.roll is None else config.roll, least=0)
    for name, valid in (("labels", LABELS), ("distance", DISTANCES)):
        if getattr(config, name) not in valid:
            raise unknown(name, getattr(config, name), valid)
    require_above_zero("temperature", config.temperature, why="scores are divided by it",
                       example=20.0)
    check_start("noise", data, config.ipc)


def settled(
    network: Network,
    variables: PyTree,
    data: RealData,
    *,
    normaliser: Normaliser,
    key: jax.Array,
    batch_size: int,
    augmentation: Augmentation,
) -> PyTree:
    """The variables with running statistics that are averages over batches, not the last ones."""
    batch_size = min(batch_size, data.labels.shape[0])

    @jax.jit
    def run(variables, data, normaliser, key):
        def step(stats, key):
            rows_key, augment_key = jax.random.split(key)
            rows = rows_uniform(data, rows_key, batch_size)
            images = normalise(normaliser, gather(data, rows)[0])
            images = augmentation.apply(augmentation.draw(augment_key, batch_size), images)
            stats = network.apply({**variables, "batch_stats": stats}, images, True).batch_stats
            return stats, stats

        keys = jax.random.split(key, _SETTLING)
        each = jax.lax.scan(step, variables["batch_stats"], keys)[1]
        return {**variables, "batch_stats": jax.tree.map(lambda x: jnp.mean(x, axis=0), each)}

    return run(variables, data, normaliser, key)


def recipe(config: WMDD, data: RealData) -> Recipe:
    """WMDD as a composition of the library's parts; `prepare` trains its teacher.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe` that `distill.prepared` completes.

    Raises:
      ConfigError: a setting that cannot be.
    """
    _check(config, data)
    spec, normaliser = data.spec, standardise(data)
    network = teacher_network(config.teacher, spec, width=config.teacher_width)
    black, white = (grey(normaliser, level) for level in (0.0, 1.0))
    roll = min(spec.shape[:2]) // 7 if config.roll is None else config.roll
    views, seen = (crop_flip_roll(spec.shape, area=config.area, flip=config.mirror_views, roll=most)
                   for most in (0, roll))
    batch_size = min(config.teacher_batch_size, data.labels.shape[0])
    teacher_steps = max(1, math.ceil(config.teacher_epochs * data.labels.shape[0] / batch_size))

    def compute(data: RealData, key: jax.Array) -> dict:
        train_key, settle_key, targets_key = jax.random.split(key, 3)
        rate = optax.cosine_decay_schedule(config.teacher_rate, teacher_steps)
        variables = train_supervised(
            network, data, normaliser=normaliser, key=train_key, steps=teacher_steps,
            batch_size=batch_size, augmentation=views,
            optimizer=decayed_momentum(rate, weight_decay=config.teacher_decay),
        )[1]
        variables = settled(network, variables, data, normaliser=normaliser, key=settle_key,
                            batch_size=batch_size, augmentation=views)
        targets = class_targets(network, variables, data, config.ipc, normaliser=normaliser,
                                key=targets_key, learn_weights=config.learn_weights)
        return {"variables": variables, "targets": targets}

    def complete(recipe: Recipe, arrays: dict) -> Recipe:
        variables = arrays["variables"]

        @jax.jit
        def soft_labels(images: jax.Array) -> jax.Array:
            logits = in_chunks(lambda x: network.apply(variables, x).logits, images)
            return jax.nn.softmax(logits / config.temperature)

        def finalise(synthetic: SyntheticSet, data: RealData, key: jax.Array) -> SyntheticSet:
            return synthetic._replace(labels=soft_labels(synthetic.images))

        objective = barycentre_matching(
            network, variables, arrays["targets"], distance=config.distance,
            block=max(1, config.block_images // config.ipc), augmentation=seen,
            label_weight=config.label_weight, statistics_weight=config.statistics_weight,
        )
        return dataclasses.replace(recipe, objective=objective,
                                   finalise=finalise if config.labels == "soft" else None)

    soft = config.labels == "soft"
    adam = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps), 0.5, 0.9)
    return Recipe(
        method="wmdd",
        settings=dataclasses.asdict(config),
        initialise=class_start("noise", normaliser=normaliser, ipc=config.ipc, kind="one_hot"),
        parameterization=pixels(labels="fixed"),
        objective=unprepared("wmdd", "teacher"),
        optimizer=optax.chain(adam, kept_between(black, white)),
        steps=config.steps,
        normaliser=normaliser,
        label_kind="probabilities" if soft else "one_hot",
        evaluation=protocol(
            name="wmdd", network=config.teacher, depth=default_depth(spec),
            width=config.evaluation_width, norm=config.evaluation_norm, optimizer="adamw",
            weight_decay=0.01, learning_rate=1e-3, schedule="warmup_cosine", warmup=0,
            final_fraction=0.0,
            epochs=config.evaluation_epochs, batch_size=100, augmentation=config.augmentation,
            cutmix=config.mix, output_scale=config.temperature if soft else 1.0,
        ),
        prepare=Preparation(compute, complete),
        fixed_images="each of its images has its own point of a barycentre",
        real_batches=False,
        citation=_CITATION,
    )


def _published() -> dict[tuple[str, int], Published]:
    rows = {
        "imagenette": {1: (40.2, 0.6), 10: (64.8, 0.4), 50: (83.5, 0.3), 100: (87.1, 0.3)},
        "tiny_imagenet": {1: (7.6, 0.2), 10: (41.8, 0.1), 50: (59.4, 0.5), 100: (61.0, 0.3)},
        "imagenet": {1: (3.2, 0.3), 10: (38.2, 0.2), 50: (57.6, 0.5), 100: (60.7, 0.2)},
    }
    source = "WMDD, project page, ResNet-18 on the teacher's labels of crops"
    return {(name, ipc): Published(*figures, source)
            for name, row in rows.items() for ipc, figures in row.items()}


METHOD = Method(
    name="wmdd",
    title="Dataset Distillation via the Wasserstein Metric",
    config=WMDD,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published=_published(),
    citation=_CITATION,
)
