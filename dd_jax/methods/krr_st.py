"""KRR-ST: Self-Supervised Dataset Distillation for Transfer Learning (Lee et al., ICLR 2024).

Images and a teacher's representations of them, distilled from images without labels: kernel ridge
regression on the features of a pool of networks that are trained on the set; AdamW on both.

Differs from the official code:
  - the regression's Gram matrix, factor and solves are float64 (float32 there);
  - the teacher's training is ours: its architecture and loss are the paper's, its views are a
    crop, a mirror, colour jitter and a cutout, its optimiser is Adam;
  - synthetic images live in model space; their AdamW works in pixel space all the same, its
    gradients and updates are rescaled by the normaliser's standard deviation;
  - batch normalisation keeps 0.1 of the old running statistics at each step (0.9 there), and
    convolutions have a bias;
  - mirroring is a setting, on by default (there off for SVHN);
  - a network of the pool that has had its steps starts again at age 0, as in the paper; the
    released code forgets to, which `reset_age=False` repeats.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from dd_jax import nets
from dd_jax.augment import views
from dd_jax.data import gather, grey, normalise, rows_uniform, standardise
from dd_jax.distill.recipe import Preparation, Recipe
from dd_jax.errors import ConfigError
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import Method, default_depth, require_positive, require_rate, unprepared
from dd_jax.methods.teacher import teacher_network
from dd_jax.objectives.representation_ridge import representation_ridge, representations
from dd_jax.pools.pretrained import pretrained_pool
from dd_jax.synthetic import pixels
from dd_jax.train import train_self_supervised
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.transforms.pixel_space import in_pixel_space
from dd_jax.types import Objective, RealData, SyntheticSet

_CITATION = (
    "D. B. Lee, S. Lee, J. Ko, K. Kawaguchi, J. Lee, S. J. Hwang. Self-Supervised Dataset "
    "Distillation for Transfer Learning. ICLR 2024."
)


@dataclasses.dataclass(frozen=True)
class KRRST:
    """Settings of KRR-ST; the defaults are the official ones for CIFAR-100.

    Attributes:
      ipc: images per class; ipc * K are drawn from all images, whatever their class.
      steps: outer steps.
      learning_rate: AdamW's, in units of [0, 1] pixels and of representations; decayed linearly to
        a thousandth. The authors have 1e-5 for sets of 64 pixels.
      batch_size: real images per step.
      ridge: regulariser, times the trace of the kernel.
      width, depth: of the pool's ConvNets, whose widths double; width None ends at 512 channels,
        depth None follows the image size.
      pool_size, max_age, pool_rate, pool_decay: networks kept, training steps until one starts
        again, rate and weight decay of their SGD.
      reset_age: False repeats an error of the released code, see `pools.pretrained_pool`.
      flip: mirror real images, for the teacher too; switch it off for digits.
      teacher: "resnet18" or "convnet", with `teacher_width` channels in its first stage.
      teacher_loss: "barlow_twins" or "simsiam".
      teacher_steps, teacher_batch_size, teacher_rate: of the teacher's training.
      teacher_projector: width of both layers of its projector.
      evaluation_width, evaluation_epochs: of the networks that are pre-trained on the set.
    """

    ipc: int = 10
    steps: int = 160_000
    learning_rate: float = 1e-4
    batch_size: int = 1024
    ridge: float = 1e-6
    width: int | None = None
    depth: int | None = None
    pool_size: int = 10
    max_age: int = 1000
    pool_rate: float = 0.1
    pool_decay: float = 1e-3
    reset_age: bool = True
    flip: bool = True
    teacher: str = "resnet18"
    teacher_width: int = 64
    teacher_loss: str = "barlow_twins"
    teacher_steps: int = 200_000
    teacher_batch_size: int = 256
    teacher_rate: float = 1e-3
    teacher_projector: int = 2048
    evaluation_width: int | None = None
    evaluation_epochs: int = 1000


def official(ipc: int) -> KRRST:
    """The settings of the paper, for sets of 32 pixels."""
    return KRRST(ipc=ipc)


def cpu(ipc: int) -> KRRST:
    """Settings for some minutes on two CPU cores: narrow networks, a small teacher, few steps."""
    return KRRST(ipc=ipc, steps=1000, learning_rate=3e-3, batch_size=256, width=16, max_age=100,
                 teacher="convnet", teacher_width=32, teacher_steps=400, teacher_batch_size=128,
                 teacher_rate=2e-3, teacher_projector=512, evaluation_width=16,
                 evaluation_epochs=300)


def _check(config: KRRST, data: RealData) -> None:
    require_positive(config, "ipc", "steps", "batch_size", "pool_size", "max_age", "teacher_width",
                     "teacher_steps", "teacher_batch_size", "teacher_projector",
                     "evaluation_epochs")
    require_positive(config, *(name for name in ("width", "depth", "evaluation_width")
                               if getattr(config, name) is not None))
    require_rate(config, "learning_rate", "pool_rate", "pool_decay", "teacher_rate")
    if config.max_age < 2:
        raise ConfigError(f"max_age is {config.max_age}, expected at least 2",
                          fix="pass max_age=1000")
    wanted, count = config.ipc * data.spec.num_classes, data.labels.shape[0]
    if wanted > count:
        raise ConfigError(f"ipc={config.ipc} asks for {wanted} images of {count}",
                          fix=f"pass ipc={count // data.spec.num_classes} or less")


def recipe(config: KRRST, data: RealData) -> Recipe:
    """KRR-ST as a composition of the library's parts; its teacher is trained by `prepare`.

    Args:
      config: the settings.
      data: the real training set; its labels are not used.

    Returns:
      A `Recipe` that `distill.prepared` completes; the labels of its set are representations.

    Raises:
      ConfigError: a setting that cannot be.
    """
    _check(config, data)
    spec, count = data.spec, data.labels.shape[0]
    normaliser = standardise(data)
    black = grey(normaliser, 0.0)[None, None]
    depth = default_depth(spec, config.depth)
    widest = max(1, 512 // 2 ** (depth - 1))
    width = config.width or widest
    teacher_net = teacher_network(config.teacher, spec, width=config.teacher_width)
    evaluation_width = config.evaluation_width or widest
    for each in (width, evaluation_width):  # what cannot be built fails before the training
        nets.convnet_widening(spec, depth=depth, width=each)

    def compute(data: RealData, key: jax.Array) -> dict:
        augmentation = views(spec.shape, flip=config.flip, colour=0.3, cutout=0.25, fill=black)
        rate = optax.cosine_decay_schedule(config.teacher_rate, config.teacher_steps)
        trained = train_self_supervised(
            teacher_net, data, normaliser=normaliser, augmentation=augmentation, key=key,
            steps=config.teacher_steps, batch_size=min(config.teacher_batch_size, count),
            optimizer=optax.adam(rate), loss=config.teacher_loss,
            projector=(config.teacher_projector,) * 2,
        )
        return trained._asdict()

    def complete(recipe: Recipe, arrays: dict) -> Recipe:
        teacher = representations(teacher_net, arrays["variables"])

        def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
            rows = rows_uniform(data, key, config.ipc * spec.num_classes)
            images = normalise(normaliser, gather(data, rows)[0])
            return SyntheticSet(images, teacher(images))

        return dataclasses.replace(recipe, initialise=initialise, objective=objective(teacher))

    def objective(teacher) -> Objective:
        length = jax.eval_shape(teacher, jnp.zeros((1, *spec.shape))).shape[-1]
        network = nets.convnet_widening(dataclasses.replace(spec, num_classes=length),
                                        depth=depth, width=width)
        optimizer = decayed_momentum(config.pool_rate, weight_decay=config.pool_decay)
        pool = pretrained_pool(network, size=config.pool_size, max_age=config.max_age,
                               optimizer=optimizer, reset_age=config.reset_age)
        return representation_ridge(
            network, pool, teacher, batch_size=min(config.batch_size, count), ridge=config.ridge,
            augmentation=views(spec.shape, flip=config.flip, fill=black),
        )

    schedule = optax.linear_schedule(config.learning_rate, 1e-3 * config.learning_rate,
                                     config.steps)
    adam = optax.adam(schedule)  # AdamW of weight decay 0
    return Recipe(
        method="krr_st",
        settings=dataclasses.asdict(config),
        initialise=unprepared("krr_st", "teacher").init,
        parameterization=pixels(labels="learned"),
        objective=unprepared("krr_st", "teacher"),
        optimizer={"images": in_pixel_space(adam, normaliser.std), "labels": adam},
        steps=config.steps,
        normaliser=normaliser,
        label_kind="representations",
        evaluation=protocol(
            name="krr_st", network="convnet_widening", norm="batch", depth=depth,
            width=evaluation_width, optimizer="sgd", learning_rate=0.1,
            momentum=0.9, weight_decay=1e-3, schedule="constant", loss="mean_squared_error",
            epochs=config.evaluation_epochs, batch_size=256,
        ),
        prepare=Preparation(compute, complete),
        citation=_CITATION,
    )


METHOD = Method(
    name="krr_st",
    title="Self-Supervised Dataset Distillation for Transfer Learning",
    config=KRRST,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={},
    citation=_CITATION,
)
