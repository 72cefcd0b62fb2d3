"""How one live teacher tells a student every loss that it can, or why it cannot.

Losses of logits are told by `labels.teacher`; those that look at features, taps or the head by
`labels.told_by`, with what has to train along put beside the student by `nets.extended`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax import augment
from dd_jax.backend import in_chunks
from dd_jax.data import normalise
from dd_jax.distill.teachers import Teacher
from dd_jax.errors import ConfigError
from dd_jax.evaluate import Protocol, build_network
from dd_jax.evaluate.train import train
from dd_jax.labels import Supervision, teacher
from dd_jax.labels.calibrated import calibrated
from dd_jax.labels.live import TOLD
from dd_jax.labels.losses import NamedLoss, named
from dd_jax.labels.losses.covariate_shift import domain_ratio, importance
from dd_jax.labels.losses.ferkd import calibrate
from dd_jax.labels.losses.pseudo_classes import PseudoClasses, pseudo_classes
from dd_jax.labels.told_by import (
    class_means,
    ensemble_outputs,
    pseudo_class_targets,
    reweighted_teacher,
    teacher_outputs,
)
from dd_jax.nets import extras
from dd_jax.nets.extended import Extra, extended, folded, without_extra
from dd_jax.store import DistilledSet
from dd_jax.train.fit import rows_of
from dd_jax.types import Network, PyTree, RealData, SyntheticSet

PER_CLASS = 4  # pseudo-classes of LELP
_MOST_REAL = 10_000  # images that the density of the data is judged by


class Lesson(NamedTuple):
    """A loss as a training.

    Attributes:
      network: what is trained.
      supervision: what it is told.
      tested: whose logits count in the test.
      own: (variables) -> those of `tested`.
    """

    network: Network
    supervision: Supervision
    tested: Network
    own: Callable[[PyTree], PyTree] = lambda variables: variables


@dataclasses.dataclass(frozen=True, eq=False)
class Room:
    """A teacher, its student's architecture and test, the set, and the real images.

    What of the real images a loss needs is computed when it is first asked for.
    """

    master: Teacher
    protocol: Protocol
    distilled: DistilledSet
    real: RealData

    @cached_property
    def student(self) -> Network:
        """As the protocol has it."""
        return build_network(self.protocol, self.distilled.spec)

    @property
    def pair(self) -> tuple[Network, PyTree]:
        """(the teacher's network, its variables)."""
        return self.master.network, self.master.variables

    @property
    def classes(self) -> int:
        """K."""
        return self.distilled.spec.num_classes

    def width(self, network: Network) -> int:
        """Of a network's features."""
        images = jax.ShapeDtypeStruct((1, *self.distilled.spec.shape), jnp.float32)
        like = jax.eval_shape(network.init, jax.random.key(0))
        return jax.eval_shape(network.apply, like, images).features.shape[-1]

    def widths(self) -> tuple[int, int]:
        """(of the student's features, of the teacher's)."""
        return self.width(self.student), self.width(self.master.network)

    @cached_property
    def images(self) -> jax.Array:
        """[N, H, W, C] of the real set in model space."""
        return normalise(self.distilled.normaliser, jnp.asarray(self.real.images))

    @cached_property
    def labels(self) -> np.ndarray:
        """[N] of the real set."""
        return np.asarray(self.real.labels)

    @cached_property
    def means(self) -> jax.Array:
        """[K, P] mean features of the classes of the real set."""
        return class_means(*self.pair, self.images, self.labels, classes=self.classes)

    def features(self, images: jax.Array) -> np.ndarray:
        """[n, P] of the teacher."""
        network, variables = self.pair
        return np.asarray(jax.jit(lambda variables, images: in_chunks(
            lambda x: network.apply(variables, x).features, images))(variables, images))

    @cached_property
    def pseudo(self) -> PseudoClasses:
        """LELP's directions, of the real set."""
        head = self.master.variables["params"]["head"]["kernel"]
        return pseudo_classes(self.features(self.images), self.labels, head, per_class=PER_CLASS)

    @cached_property
    def weights(self) -> jax.Array:
        """[M] by which the set's images count to stand for the real ones."""
        every = -(-len(self.images) // _MOST_REAL)
        ratio = domain_ratio(self.features(self.distilled.trainable().images),
                             self.features(self.images[::every]))
        return jnp.asarray(importance(ratio))


class EmptyRoom(Room):
    """The same before there is a teacher: zeros of the right shapes, to try a lesson out."""

    means = property(lambda self: jnp.zeros((self.classes, self.widths()[1])))
    pseudo = property(lambda self: PseudoClasses(
        jnp.zeros((self.classes, PER_CLASS, self.widths()[1])), self.means))
    weights = property(lambda self: jnp.ones((len(self.distilled.synthetic.images),)))


def _by_logits(loss: NamedLoss, room: Room) -> Lesson:
    return Lesson(room.student, teacher(*room.pair, loss=loss), room.student)


def _by_ferkd(loss: NamedLoss, room: Room) -> Lesson:
    """FerKD as its calibration of a live teacher, which is the same loss."""
    source = teacher(*room.pair, loss=named("cross_entropy"))
    told = calibrated(source, partial(calibrate, **dict(loss.options)))
    return Lesson(room.student, told, room.student)


def _beside(room: Room, extra: Extra | None, supervision: Supervision) -> Lesson:
    if extra is None:
        return Lesson(room.student, supervision, room.student)
    return Lesson(extended(room.student, extra), supervision, room.student, without_extra)


def _projection(room: Room) -> Extra | None:
    """To the teacher's width, where it is another."""
    ours, theirs = room.widths()
    return None if ours == theirs else extras.linear_projection(ours, theirs)


# Loss -> what trains beside the student; losses that need class means of the teacher's features.
_EXTRAS: Mapping[str, Callable[[Room], Extra | None]] = MappingProxyType({
    "kd_plus_plus": _projection, "vl2v": _projection,
    "vkd": lambda room: extras.orthogonal_projection(*room.widths()),
    "dual_head": lambda room: extras.second_head(room.widths()[0], room.classes),
    "meal_v2": lambda room: extras.discriminator(room.classes),
})
_OF_MEANS = ("kd_plus_plus", "vl2v")


def _extra(loss: NamedLoss, room: Room) -> Extra | None:
    return _EXTRAS[loss.name](room) if loss.name in _EXTRAS else None


def _by_outputs(loss: NamedLoss, room: Room) -> Lesson:
    means = room.means if loss.name in _OF_MEANS else None
    return _beside(room, _extra(loss, room), teacher_outputs(*room.pair, loss=loss, means=means))


def _by_ensemble(loss: NamedLoss, room: Room) -> Lesson:
    return _beside(room, _extra(loss, room), ensemble_outputs([room.pair], loss=loss))


def _by_pseudo_classes(loss: NamedLoss, room: Room) -> Lesson:
    spec, count = room.distilled.spec, room.classes * PER_CLASS
    wide = build_network(room.protocol, dataclasses.replace(
        spec, num_classes=count, class_names=tuple(map(str, range(count)))))
    told = pseudo_class_targets(*room.pair, room.pseudo, loss=loss)
    return Lesson(wide, told, folded(wide, room.classes))


def _by_weights(loss: NamedLoss, room: Room) -> Lesson:
    return Lesson(room.student, reweighted_teacher(*room.pair, room.weights, loss=loss),
                  room.student)


# What a loss takes -> (loss, room) -> its lesson.
_LESSONS: Mapping[str, Callable[[NamedLoss, Room], Lesson]] = MappingProxyType({
    **dict.fromkeys(TOLD, _by_logits), "Judged": _by_ferkd, "Told": _by_outputs,
    "Ensemble": _by_ensemble, "PseudoTargets": _by_pseudo_classes, "Weighted": _by_weights,
})
# What one live teacher does not say, by the loss or by what it takes.
_UNTOLD: Mapping[str, str] = MappingProxyType({
    "augmix": "compares three views of each image, and a batch here has one",
    "classes": "takes class numbers: it is a loss of labels, and a teacher's word is not asked",
    "Interpolated": "takes how far the teacher has come, which follows the losses of earlier steps",
    "Contrast": "takes which images the student made, and without any it is skew_kl",
    "Private": "takes how private each image is, which nobody says of these images",
    "Shown": "takes in which of several ways an image is shown, and a head of class and way",
    "Committee": "takes several teachers and a gate that picks among them",
})


def untold(loss: NamedLoss) -> str | None:
    """Why one live teacher cannot tell a loss; None where it can.

    Example:
      >>> untold(named("kl")) is None, untold(named("taid"))[:35]
      (True, 'takes how far the teacher has come,')
    """
    if loss.name in _UNTOLD or loss.targets not in _LESSONS:
        return _UNTOLD.get(loss.name) or _UNTOLD.get(loss.targets) or (
            f"takes {loss.targets}, for which there is no lesson")
    return None


def lesson(loss: NamedLoss, room: Room) -> Lesson:
    """The lesson of a loss.

    Raises:
      ConfigError: one teacher cannot tell it, with the reason.
      DataError: real images that what it needs cannot be computed from.
    """
    reason = untold(loss)
    if reason is not None:
        raise ConfigError(f"loss {loss.name!r} {reason}", fix="leave it out")
    return _LESSONS[loss.targets](loss, room)


def trained(
    by: Lesson, protocol: Protocol, synthetic: SyntheticSet, supervision: Supervision,
    key: jax.Array,
) -> PyTree:
    """Variables of a fresh network after the protocol's training; pure, as `evaluate.train`."""
    images, labels = jnp.asarray(synthetic.images), jnp.asarray(synthetic.labels)
    return train(
        by.network, protocol, size=images.shape[0], take=rows_of(images, labels), key=key,
        augmentation=augment.by_name(protocol.views.augmentation, images.shape[1:]),
        supervision=supervision, epochs=protocol.plan.epochs,
        batch_size=protocol.plan.batch_size, weights=synthetic.weights)
