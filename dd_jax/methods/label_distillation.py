"""Label distillation: Flexible Dataset Distillation: Learn Labels Instead of Images (Bohdal et al.,
2020).

Real images keep; their labels, which start uniform, are learned so that one step of a network on
them classifies real images. The network itself takes steps on them in between, and is replaced when
it stands still.

Differs from the official code:
  - the library's ConvNet (there LeNet and an AlexNet);
  - whether a network stands still is seen by its error on the step's real batch after its own step
    (there by that of the differentiated step);
  - the steps of the test are a setting (there chosen on a validation split from what a network
    lasted during distillation);
  - the second-order variant only, not the one with a ridge regression head;
  - the network's own step takes another batch of the images than the differentiated one;
  - base images are chosen class by class.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from dd_jax import pools
from dd_jax.data import normalisers
from dd_jax.distill.recipe import Recipe
from dd_jax.evaluate.protocol import protocol
from dd_jax.methods.record import Method, Published, default_depth
from dd_jax.methods.unrolling import (
    UnrollingSettings,
    adjoint_of,
    check,
    check_images,
    lighter,
    network_of,
)
from dd_jax.objectives import unrolled
from dd_jax.synthetic import class_start, pixels
from dd_jax.synthetic.fixed_images import fixed_images
from dd_jax.train import student
from dd_jax.transforms.simplex import kept_probabilities
from dd_jax.types import RealData, SyntheticSet

_CITATION = (
    "O. Bohdal, Y. Yang, T. Hospedales. Flexible Dataset Distillation: Learn Labels Instead of "
    "Images. NeurIPS 2020 workshop on meta-learning."
)


@dataclasses.dataclass(frozen=True)
class LabelDistillation(UnrollingSettings):
    """Settings of label distillation, beside those of `UnrollingSettings`.

    Attributes:
      start: "real", "noise" or "class_means".
      inner_batch_size: base images of a step.
      inner_rate: of the differentiated step.
      label_rate: of the Adam on labels.
      network_rate: of the Adam on networks, in distillation and in the test.
      window: errors whose mean says whether a network stands still.
      evaluation_steps: of the networks that test the set.
      evaluation_seeds: networks that test it.
    """

    start: str = "real"
    inner_batch_size: int = 50
    inner_rate: float = 0.01
    label_rate: float = 1e-3
    network_rate: float = 1e-3
    window: int = 50
    evaluation_steps: int = 300
    evaluation_seeds: int = 20


def official(ipc: int) -> LabelDistillation:
    """The settings of the official code for MNIST."""
    return LabelDistillation(ipc=ipc)


def cpu(ipc: int) -> LabelDistillation:
    """Settings for five minutes on one or two CPU cores."""
    return LabelDistillation(ipc=ipc, steps=1500 if ipc == 1 else 900, batch_size=256, width=32,
                             label_rate=1e-2, evaluation_seeds=5)


def recipe(config: LabelDistillation, data: RealData) -> Recipe:
    """Label distillation as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.

    Returns:
      A `Recipe`.

    Raises:
      ConfigError: a setting that cannot be.
    """
    check_images(config, data)
    check(config, whole=("inner_batch_size", "window", "evaluation_steps",
                               "evaluation_seeds"),
          rates=("inner_rate", "label_rate", "network_rate"))
    spec = data.spec
    images = config.ipc * spec.num_classes
    network, normaliser = network_of(config, spec), normalisers(config.normaliser, data)
    learner = student(network, steps=1, batch_size=config.inner_batch_size,
                      adjoint=adjoint_of(config, plain=True))
    pool = pools.restarted_pool(network, optimizer=optax.adam(config.network_rate),
                                batch_size=config.inner_batch_size, window=config.window)
    real = class_start(config.start, normaliser=normaliser, ipc=config.ipc, kind="one_hot")

    def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
        given = real(data, key)
        return given._replace(labels=jnp.full_like(given.labels, 1 / spec.num_classes))

    batch = min(config.inner_batch_size, images)
    return Recipe(
        method="label_distillation",
        settings=dataclasses.asdict(config),
        initialise=initialise,
        parameterization=fixed_images(pixels(labels="learned")),
        objective=unrolled(learner, pool=pool, rate=config.inner_rate,
                           batch_size=min(config.batch_size, data.labels.shape[0])),
        optimizer={"labels": optax.chain(optax.adam(config.label_rate), kept_probabilities())},
        steps=config.steps,
        normaliser=normaliser,
        label_kind="probabilities",
        evaluation=protocol(
            name="label_distillation", depth=default_depth(spec, config.depth), width=config.width,
            optimizer="adam", learning_rate=config.network_rate, schedule="constant",
            epochs=-(-config.evaluation_steps // -(-images // batch)), batch_size=batch,
            seeds=config.evaluation_seeds),
        lighter=lighter(config, data, recipe, "recursive"),
        citation=_CITATION,
    )


_SOURCE = "label distillation, second-order (not re-checked)"
METHOD = Method(
    name="label_distillation",
    title="Flexible Dataset Distillation: Learn Labels Instead of Images",
    config=LabelDistillation,
    presets={"official": official, "cpu": cpu},
    recipe=recipe,
    published={
        ("mnist", 1): Published(60.9, 3.2, _SOURCE),
        ("mnist", 10): Published(87.3, 0.7, _SOURCE),
        ("mnist", 50): Published(93.3, 0.3, _SOURCE),
        ("cifar10", 1): Published(25.7, 0.7, _SOURCE),
        ("cifar10", 10): Published(38.3, 0.4, _SOURCE),
        ("cifar10", 50): Published(42.5, 0.4, _SOURCE),
    },
    citation=_CITATION,
)
