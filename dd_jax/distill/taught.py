"""A live teacher in the place of a set's labels: what fits whom, and the supervision that it is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from dd_jax.data import Normaliser
from dd_jax.distill.expected import expected
from dd_jax.distill.teachers import Teacher
from dd_jax.errors import ConfigError, printable
from dd_jax.evaluate.protocol import Protocol
from dd_jax.labels.committee import committee
from dd_jax.labels.live import check_mode
from dd_jax.labels.losses import Loss
from dd_jax.labels.supervision import Supervision, teacher
from dd_jax.store import DistilledSet
from dd_jax.store.trajectories import normaliser_digest
from dd_jax.types import DataSpec, Network, PyTree

_SQUARED = ("squared_error", "mean_squared_error")


def taught(
    distilled: DistilledSet, teachers: Sequence[Teacher], *, loss: Loss,
    protocols: Sequence[Protocol] = (), mode: str = "running", strict: bool = False, **mean: Any,
) -> Supervision:
    """What students of a set are told by teachers that look at the students' own views.

    Args:
      distilled: the set, whose images are used and whose labels are not.
      teachers: one, or a committee.
      loss: (student's logits, what the teachers tell) -> [B], such as what the name "kl@4" gives.
      protocols: that the students are going to be trained by.
      mode: of the teachers' batch normalisation, see `labels.teacher`.
      strict: whether a teacher below the accuracy of its kind is an error, and not a warning.
      **mean: of a committee, weights and average of `labels.committee`.

    Returns:
      A `Supervision` for `evaluate`.

    Raises:
      ConfigError: no teacher, one of other classes, images or normaliser, or a protocol that a
        teacher cannot follow.
    """
    if distilled.label_kind == "representations":
        raise ConfigError("the set holds representations, and a teacher tells classes",
                          fix="call evaluate.evaluate_transfer")
    if not teachers:
        raise ConfigError("there is no teacher", fix="pass one at least")
    check_mode(mode)
    for protocol in protocols:
        check_protocol(protocol)
    for each in teachers:
        check_teacher(each, distilled.spec, distilled.normaliser)
        check_accuracy(each, strict=strict)
    if len(teachers) == 1 and not mean:
        return teacher(teachers[0].network, teachers[0].variables, loss=loss, mode=mode)
    # A loss that is told logits has a temperature: the one at which probabilities are averaged.
    mean = {"temperature": dict(getattr(loss, "options", ())).get("temperature", 1.0), **mean}
    return committee(members_of(teachers), loss=loss, mode=mode, **mean)


def check_protocol(protocol: Protocol) -> None:
    """Refuses a protocol whose students cannot follow a teacher's probabilities.

    CutMix and mixup are no hindrance: the teacher sees the mixed images.

    Raises:
      ConfigError: its loss is a squared error to labels, or it changes the students' outputs.
    """
    told, name = protocol.supervision, repr(protocol.name)
    if told.loss in _SQUARED:
        raise ConfigError(
            f"protocol {name} trains by {told.loss.replace('_', ' ')} to the set's labels, and a "
            "teacher tells probabilities", fix="use a protocol of loss='auto' or 'cross_entropy'")
    if told.centre_outputs or told.output_scale != 1.0:
        raise ConfigError(
            f"protocol {name} changes the students' outputs (centre_outputs={told.centre_outputs}, "
            f"output_scale={told.output_scale:g}), which a teacher's are not",
            fix="use a protocol of centre_outputs=False and output_scale=1.0")


def check_accuracy(found: Teacher, *, strict: bool = False) -> None:
    """Names a teacher that is below what its kind should reach.

    Args:
      found: the teacher.
      strict: whether that is an error, and not a warning.

    Raises:
      ConfigError: as said.
    """
    least, what = expected(found.name, found.spec.name, found.spec.num_classes)
    if found.accuracy >= least:
        return
    said = (f"the teacher {found.name} classifies {100 * found.accuracy:.1f} % of the test images "
            f"rightly, expected {100 * least:.1f} %, {what}")
    if strict:
        raise ConfigError(said, fix="train it for more epochs, or allow a weak one")
    warnings.warn(f"{said}: its students learn its mistakes", stacklevel=2)


def check_teacher(found: Teacher, spec: DataSpec, normaliser: Normaliser) -> None:
    """Refuses a teacher of other images, classes or preprocessing than its students'.

    Warns where either's classes have numbers for names, which may be anybody's.

    Args:
      found: the teacher.
      spec, normaliser: of the set that students are trained on.

    Raises:
      ConfigError: as said.
    """
    what = f"the teacher {found.name} was trained on"
    if found.spec.shape != spec.shape:
        raise ConfigError(f"{what} images of shape {found.spec.shape}, the set's are {spec.shape}",
                          fix="take a teacher of the data that was distilled")
    ours, theirs = spec.class_names, found.spec.class_names
    if len(ours) != len(theirs):
        raise ConfigError(f"{what} {len(theirs)} classes, the set has {len(ours)}",
                          fix="take a teacher of the data that was distilled")
    numbers = tuple(str(i) for i in range(len(ours)))
    if sorted(ours) != sorted(theirs) and numbers in (ours, theirs):
        warnings.warn(f"{what} classes that are not called as those of the set", stacklevel=2)
    elif ours != theirs:
        how = "in another order" if sorted(ours) == sorted(theirs) else "that are called otherwise"
        raise ConfigError(f"{what} classes {how} than the set's",
                          fix="take a teacher of the data that was distilled")
    if found.normaliser != normaliser_digest(normaliser):
        raise ConfigError(f"{what} images of another normaliser than the set's, whose are of kind "
                          f"{normaliser.kind!r}",
                          fix="train one on the set's: --teacher train, or "
                              "teacher(..., normaliser=distilled.normaliser)")


def members_of(teachers: Sequence[Teacher]) -> list[tuple[Network, PyTree]]:
    """The pairs that `labels.committee` takes.

    Example:
      >>> members_of([])
      []
    """
    return [(each.network, each.variables) for each in teachers]


def shown(found: Teacher) -> str:
    """A teacher in a line.

    Example:
      >>> spec = DataSpec("toy", (2, 2, 1), 2, ("a", "b"))
      >>> shown(Teacher(None, None, "mlp", 0.9, spec, ""))
      'teacher mlp: 90.0 % of the test images of toy'
    """
    return (f"teacher {found.name}: {100 * found.accuracy:.1f} % of the test images of "
            f"{printable(found.spec.name, most=80)}")
