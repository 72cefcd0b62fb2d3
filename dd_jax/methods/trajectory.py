"""What the trajectory methods have in common: experts, a student, and a set with its own rate."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dd_jax import augment
from dd_jax.data import Normaliser, normalisers
from dd_jax.distill.recipe import Recipe, StoredPreparation
from dd_jax.evaluate.protocol import Protocol, protocol
from dd_jax.methods.record import (
    default_depth,
    require_learned_rate,
    require_positive,
    require_rate,
    unprepared,
)
from dd_jax.methods.unrolling import adjoint_of, lighter, network_of
from dd_jax.objectives.reach import Reach
from dd_jax.objectives.trajectory_matching import trajectory_matching
from dd_jax.run.experts import train_experts
from dd_jax.store.trajectories import Trajectories, open_trajectories
from dd_jax.synthetic import check_start, class_start, pixels
from dd_jax.train.segments import Segments, StartEpochs, check_starts
from dd_jax.train.student import Student, student
from dd_jax.transforms.rate_space import in_rate_space
from dd_jax.types import Network, RealData, SyntheticSet


@dataclasses.dataclass(frozen=True)
class TrajectorySettings:
    """Settings of every trajectory method; the defaults are MTT's for CIFAR-10 without whitening.

    Attributes:
      ipc: images per class.
      experts: folder of trained experts; None trains them into the run's folder.
      steps: outer steps.
      inner_steps: of the student.
      span: epochs of the expert that these stand for.
      max_start: segments start at an epoch below it.
      batch_size: synthetic images per inner step; None for all.
      image_rate, momentum: of the SGD on the images, in model space.
      rate: of the student at first; it is learned.
      rate_rate: learning rate of that rate.
      adjoint: how the inner loop is differentiated, "full", "checkpointed" and "recursive"
        are exact, "two_pass" is TESLA's rule.
      start: "real", "noise" or "class_means".
      normaliser: "standardise" or "zca".
      augmentation: a name in `augment.by_name`: of experts, students and the networks of the test.
      width, depth: of the ConvNets; depth None follows the image size.
      expert_count, expert_epochs, expert_batch_size, expert_rate: of the experts' SGD.
      evaluation_width, evaluation_epochs: of the networks that test the set.
    """

    ipc: int = 1
    experts: str | None = None
    steps: int = 5000
    inner_steps: int = 50
    span: int = 2
    max_start: int = 2
    batch_size: int | None = None
    image_rate: float = 100.0
    momentum: float = 0.5
    rate: float = 0.01
    rate_rate: float = 1e-7
    adjoint: str = "checkpointed"
    start: str = "real"
    normaliser: str = "standardise"
    augmentation: str = "dsa"
    width: int = 128
    depth: int | None = None
    expert_count: int = 100
    expert_epochs: int = 50
    expert_batch_size: int = 256
    expert_rate: float = 0.01
    evaluation_width: int = 128
    evaluation_epochs: int = 1001


def narrow(config: Any, **changes) -> Any:
    """A config for two CPU cores: narrow networks, ten experts of few epochs, short students."""
    one = config.ipc == 1
    small = dict(
        steps=600 if one else 200, inner_steps=20 if one else 10, max_start=3, span=2,
        image_rate=100.0, rate=0.01, rate_rate=1e-5, width=32, expert_count=10, expert_epochs=5,
        evaluation_width=32, evaluation_epochs=1001 if one else 300,
    )
    return dataclasses.replace(config, **{**small, **changes})


def _check(config: Any, data: RealData) -> None:
    require_positive(config, "ipc", "steps", "inner_steps", "span", "max_start", "width",
                     "expert_count", "expert_epochs", "expert_batch_size", "evaluation_width",
                     "evaluation_epochs")
    require_rate(config, "image_rate", "momentum", "rate_rate", "expert_rate")
    require_learned_rate(config, "rate")
    check_start(config.start, data, config.ipc)


def student_of(
    config: Any, data: RealData, optimizer: optax.GradientTransformation | None = None
) -> Student:
    """The student that the settings describe.

    Args:
      config: the settings.
      data: the real set, for the shape of its images.
      optimizer: as for `train.student`.
    """
    return student(network_of(config, data.spec), steps=config.inner_steps,
                   batch_size=config.batch_size, optimizer=optimizer,
                   adjoint=adjoint_of(config, plain=optimizer is None),
                   augmentation=augment.by_name(config.augmentation, data.spec.shape))


def matching(
    config: Any, learner: Student, starts: StartEpochs, *, reach: Reach | None = None
) -> Callable[[Trajectories, Normaliser], Mapping[str, Any]]:
    """The `parts` of a method that differs from MTT in what it compares, if at all.

    Args:
      config, learner, starts: as for `trajectory_recipe`.
      reach: of the objective; None for the end points.
    """

    def parts(trajectories: Trajectories, normaliser: Normaliser) -> Mapping[str, Any]:
        segments = Segments(trajectories, config.span)
        return {"objective": trajectory_matching(learner, segments, starts=starts, reach=reach)}

    return parts


def with_rate(
    initialise: Callable[[RealData, jax.Array], SyntheticSet], rate: float | Sequence[float]
) -> Callable[[RealData, jax.Array], SyntheticSet]:
    """The start with a learning rate of the student, or with one for each of its steps."""

    def started(data: RealData, key: jax.Array) -> SyntheticSet:
        return initialise(data, key)._replace(learning_rate=jnp.asarray(rate, jnp.float32))

    return started


def trajectory_recipe(
    config: Any,
    data: RealData,
    *,
    method: str,
    citation: str,
    learner: Student,
    starts: StartEpochs,
    parts: Callable[[Trajectories, Normaliser], Mapping[str, Any]],
    build: Callable[[Any, RealData], Recipe],
    training: Mapping[str, Any] | None = None,
    adjoints: Sequence[str] = ("recursive", "two_pass"),
    **fields,
) -> Recipe:
    """A trajectory method as a composition of the library's parts.

    Args:
      config: the settings.
      data: the real training set.
      method, citation: of the recipe.
      learner: the student; its network is that of the experts.
      starts: of the segments.
      parts: (trajectories, normaliser) -> fields of the complete recipe, "objective" among them.
      build: the method's own (config, data) -> Recipe.
      training: arguments of `distill.train_experts` beside those in the settings.
      adjoints: that it can be built with where a step does not fit into the memory; offered are
        those that need less of it than the one in the settings.
      **fields: of the `Recipe`, instead of the usual ones.

    Returns:
      A `Recipe`; without a folder of experts one that `distill.prepared` completes.

    Raises:
      ConfigError: a setting that cannot be, experts that do not fit it.
    """
    _check(config, data)
    if config.experts is None:  # before any is trained
        check_starts(starts, span=config.span, epochs=config.expert_epochs)
    normaliser = normalisers(config.normaliser, data)
    network = learner.network
    like = jax.eval_shape(network.init, jax.random.key(0))["params"]

    def preparation(
        made: Mapping[str, Any], start: Callable[[Network], Network], note: str
    ) -> StoredPreparation:
        return StoredPreparation(functools.partial(write, start(network), note),
                                 functools.partial(complete, made))

    def write(network, note: str, data: RealData, key: jax.Array, folder: pathlib.Path,
              show_progress: bool | None = None) -> str:
        options = dict(epochs=config.expert_epochs, batch_size=config.expert_batch_size,
                       learning_rate=config.expert_rate,
                       augmentation=augment.by_name(config.augmentation, data.spec.shape))
        notes = {"augmentation": config.augmentation, "start": note}
        return train_experts(folder, network, data, count=config.expert_count, key=key,
                             normaliser=normaliser, notes=notes, show_progress=show_progress,
                             **{**options, **(training or {})}).digest

    def complete(made: Mapping[str, Any], recipe: Recipe, folder: pathlib.Path) -> Recipe:
        trajectories = open_trajectories(folder, like=like, normaliser=normaliser)
        found = dataclasses.replace(config, experts=str(folder))
        new = {**parts(trajectories, normaliser), "lighter": lighter(found, data, build, *adjoints)}
        # What is no longer as this method made it was replaced by hand, and stays.
        ours = {name: value for name, value in new.items() if getattr(recipe, name) is made[name]}
        # Experts are what they hold, wherever the folder lies.
        settings = {**recipe.settings, "experts": trajectories.digest}
        return dataclasses.replace(recipe, **ours, prepare=None, prepared=trajectories.digest,
                                   settings=settings,
                                   restarted=functools.partial(preparation, {**made, **new}))

    sgd = optax.sgd(config.image_rate, momentum=config.momentum)
    usual = dict(
        method=method,
        settings=dataclasses.asdict(config),
        initialise=with_rate(class_start(config.start, normaliser=normaliser, ipc=config.ipc,
                                         kind="one_hot"), config.rate),
        parameterization=pixels(labels="fixed"),
        objective=unprepared(method, "experts"),
        optimizer={"images": sgd, "learning_rate": rate_optimizer(config)},
        steps=config.steps,
        normaliser=normaliser,
        evaluation=protocol_of(config, data),
        real_batches=False,
        citation=citation,
    )
    recipe = Recipe(**{**usual, **fields})
    made = vars(recipe)
    if config.experts is not None:
        return complete(made, recipe, pathlib.Path(config.experts))
    restarted = functools.partial(preparation, made)
    return dataclasses.replace(recipe, prepare=restarted(lambda network: network, ""),
                               restarted=restarted)


def rate_optimizer(config: Any) -> optax.GradientTransformation:
    """SGD with momentum on the student's rate, which is stored as a logarithm."""
    return in_rate_space(optax.sgd(config.rate_rate, momentum=config.momentum))


def protocol_of(config: Any, data: RealData) -> Protocol:
    """The test of a set: networks trained at the set's own rate."""
    depth = default_depth(data.spec, config.depth)
    return protocol(name="mtt", depth=depth, width=config.evaluation_width, learned_rate=True,
                    epochs=config.evaluation_epochs, augmentation=config.augmentation)
