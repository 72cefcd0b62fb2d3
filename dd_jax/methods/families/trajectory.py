"""What the trajectory methods have in common: experts, a student, and a set with its own rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from dd_jax.distill.needs import experts, given_experts
from dd_jax.methods.families.unrolling import Differentiated
from dd_jax.methods.frame import ConvNets, Pixels, Site, Tested, with_rate
from dd_jax.methods.frame.fields import LearnedRate, Rate, Seed, Whole
from dd_jax.objectives.trajectory_matching import trajectory_matching
from dd_jax.store.artefacts import Artefact
from dd_jax.store.trajectories import open_trajectories
from dd_jax.train.segments import Segments, StartEpochs, check_starts
from dd_jax.train.student import Student, student
from dd_jax.transforms import in_rate_space
from dd_jax.types import Network, Objective, SyntheticSet


class Trajectories(Differentiated, Pixels, ConvNets, Tested):
    """Settings of every trajectory method; the defaults are MTT's for CIFAR-10 without whitening.

    Attributes:
      experts: folder of trained experts; None: those of the store, trained where there are none.
        Refused where their training is not what the settings ask for.
      steps: outer steps.
      inner_steps: of the student.
      span: epochs of the expert that these stand for.
      max_start: segments start at an epoch below it.
      batch_size: synthetic images per inner step; None for all.
      image_rate, momentum: of the SGD on the images, in model space.
      rate: of the student at first; it is learned.
      rate_rate: learning rate of that rate.
      augmentation: a name in `augment.by_name`: of experts, students and the networks of the test.
      expert_count, expert_epochs, expert_batch_size, expert_rate: of the experts' SGD.
      expert_seed: of their training, whatever the run's is.
    """

    experts: str | None = None
    steps: Whole = 5000
    inner_steps: Whole = 50
    span: Whole = 2
    max_start: Whole = 2
    batch_size: Whole | None = None
    image_rate: Rate = 100.0
    momentum: Rate = 0.5
    rate: LearnedRate = 0.01
    rate_rate: Rate = 1e-7
    expert_count: Whole = 100
    expert_epochs: Whole = 50
    expert_batch_size: Whole = 256
    expert_rate: Rate = 0.01
    expert_seed: Seed = 0

    def starts(self) -> StartEpochs:
        """From which epochs of an expert segments start."""
        return StartEpochs(0, self.max_start)

    def training(self) -> Mapping[str, Any]:
        """Arguments of the experts' training, beside those in the shared settings."""
        return {}

    def matching(self, at: Site, learner: Student) -> Objective:
        """What is minimised; the end points of student and expert by default."""
        return trajectory_matching(learner, self.segments(at), starts=self.starts())

    def adjoints(self) -> tuple[str, ...]:
        """Those that the objective can be built with where a step does not fit into memory."""
        return ("recursive", "two_pass")

    def student_optimizer(self) -> optax.GradientTransformation | None:
        """Of the student, see `train.student`; None for plain gradient descent."""
        return None

    def expert_start(self) -> Callable | None:
        """How experts choose the first images, see `train.expert_starts`; None: as `start` says."""
        return None

    def segments(self, at: Site, **options: Any) -> Segments:
        """Of the experts, which are there."""
        return Segments(at.have["experts"], self.span, **options)

    def student(self, at: Site, adjoint: str) -> Student:
        """The student that the settings describe."""
        optimizer = self.student_optimizer()
        return student(at.convnet(), steps=self.inner_steps, batch_size=self.batch_size,
                       optimizer=optimizer, augmentation=at.augmentation(),
                       adjoint=self.adjoint_of(adjoint, plain=optimizer is None))

    def check(self, at: Site) -> None:
        self.student(at, self.adjoint)
        if self.experts is None:  # before any is trained
            check_starts(self.starts(), span=self.span, epochs=self.expert_epochs,
                         longer="expert_epochs")

    def needs(self, at: Site) -> Mapping[str, Artefact]:
        return {"experts": self._experts(at, at.convnet(), "")}

    def later(self, at: Site):
        def needs(start: Callable[[Network], Network], note: str) -> Mapping[str, Artefact]:
            return {"experts": self._experts(at, start(at.convnet()), note)}

        return needs

    def _experts(self, at: Site, network: Network, start: str) -> Artefact:
        usual = dict(epochs=self.expert_epochs, batch_size=self.expert_batch_size,
                     learning_rate=self.expert_rate, augmentation=at.augmentation())
        training = {**usual, **self.training()}
        if self.experts is not None and not start:
            return given_experts(self.experts, network, training=training,
                                 settings={"augmentation": self.augmentation, "start": ""})
        rule = training.get("rule")
        settings = {"augmentation": at.views(), "start": start,
                    "rule": rule and dict(rule.settings)}
        return experts(network, count=self.expert_count, training=training, settings=settings,
                       normaliser=at.whitening, seed=self.expert_seed)

    def build(self, at: Site) -> dict:
        if self.experts is not None:  # refuses those of another normaliser
            like = jax.eval_shape(at.convnet().init, jax.random.key(0))["params"]
            open_trajectories(self.experts, like=like, normaliser=at.normaliser)

        def objective(adjoint: str) -> Objective:
            return self.matching(at, self.student(at, adjoint))

        return dict(
            objective=self.with_variants(objective, self.adjoints()),
            start=with_rate(self._first(at), self.rate),
            optimizer=self.optimizers(),
            evaluation=self.test(at),
        )

    def _first(self, at: Site) -> Callable[..., SyntheticSet]:
        chosen = self.expert_start()
        if chosen is None:
            return at.start()
        return chosen(self.segments(at), at.convnet(), normaliser=at.normaliser, ipc=self.ipc)

    def test(self, at: Site, **options: Any):
        """The test of a set: networks trained at the set's own rate."""
        return at.protocol("mtt", learned_rate=True, **options)

    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """SGD with momentum on the images and on the rate, which is stored as a logarithm."""
        return {"images": optax.sgd(self.image_rate, momentum=self.momentum),
                "learning_rate": in_rate_space(optax.sgd(self.rate_rate, momentum=self.momentum))}


# For two CPU cores: narrow networks, four experts of few epochs, some hundred outer steps. Such
# runs have a thirtieth of the official steps, so MTT's rates are larger from 2 images per class on:
# students that begin at 0.06 instead of 0.02 end three points higher at ten images per class.
# What is a method's own, such as inner_steps and span, stays; where it is a rate, the method says.
_SHORT = dict(steps=150, max_start=3, batch_size=25, image_rate=300.0, rate=0.06, rate_rate=1e-5)
NARROW: Mapping[int, Mapping[str, Any]] = {
    0: dict(width=32, evaluation_width=32, expert_count=4, expert_epochs=5, expert_rate=0.05),
    1: dict(steps=300, max_start=2, rate_rate=1e-6),
    2: _SHORT,
}


def narrow(
    common: Mapping[str, Any] | None = None,
    *,
    one: Mapping[str, Any] | None = None,
    several: Mapping[str, Any] | None = None,
) -> dict[int, dict[str, Any]]:
    """The table of a preset for two CPU cores: `NARROW`, and what the method has in its place.

    Args:
      common: at every budget.
      one, several: at 1 image per class, and from 2 on.
    """
    own = {0: common, 1: one, 2: several}
    return {budget: {**NARROW[budget], **(own[budget] or {})} for budget in NARROW}
