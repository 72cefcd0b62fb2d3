"""The teachers of a command: trained once, or found in the store, and what students are told."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from dd_jax.errors import ConfigError

if TYPE_CHECKING:
    from dd_jax.distill.teachers import Teacher
    from dd_jax.evaluate import Protocol
    from dd_jax.labels import Supervision
    from dd_jax.store import DistilledSet
    from dd_jax.store.artefacts import ArtefactStore
    from dd_jax.train.replay import Replay
    from dd_jax.types import Split

DEFAULT = "kl@4"
# Options that say something of a teacher.
_OF_TRAINING = ("teacher_network", "teacher_width", "teacher_depth", "teacher_epochs",
                "teacher_seed")
_OF_TEACHER = ("supervision", *_OF_TRAINING, "teacher_mode", "label_store", "strict")


class Told(NamedTuple):
    """What students are told in the place of a set's labels.

    Attributes:
      supervision: None for the set's own; of random images where the set has a label store.
      notes: what tells it from others, for files: the loss and the teachers.
      replays: label stores of the set, one for each protocol, with what files say of them.
    """

    supervision: Supervision | None = None
    notes: Mapping[str, Any] = MappingProxyType({})
    replays: Sequence[tuple[Replay, Mapping[str, Any]]] = ()


def told_of(
    options: Any, distilled: DistilledSet, data: Split, protocols: Sequence[Protocol],
    store: ArtefactStore,
) -> Told:
    """What --teacher and the options beside it ask for.

    Protocols and the loss are looked at first: a teacher may take hours.

    Raises:
      ConfigError: options of a teacher without one, or what `distill.taught` refuses.
      CheckpointError: a named teacher is not there.
    """
    from dd_jax.cli.stored_labels import asked_for, written
    from dd_jax.distill.taught import check_protocol, members_of, shown, taught
    from dd_jax.labels.live import check_mode, told_to
    from dd_jax.labels.losses import parse

    if options.teacher is None:
        for name in _OF_TEACHER:
            if getattr(options, name) not in (None, False):
                raise ConfigError(f"--{name.replace('_', '-')} says how a teacher teaches, and "
                                  "there is none", fix="pass --teacher train")
        return Told()
    if not protocols:
        raise ConfigError("networks is 'none': there are no students for --teacher",
                          fix="name a network")
    stores, by, mode = None, options.supervision or DEFAULT, options.teacher_mode or "running"
    check_mode(mode)
    if options.label_store is not None:
        stores = asked_for(options.label_store, options.supervision, distilled, protocols,
                           mode=mode)
        by = stores.loss.name if options.supervision is None else by
    loss = parse(by)
    told_to(loss)
    for protocol in protocols:
        check_protocol(protocol)
    found = _teachers(options, distilled, data, store)
    supervision = taught(distilled, [teacher for _, teacher in found], loss=loss,
                         protocols=protocols, mode=mode, strict=options.strict)
    for name, teacher in found:
        print(f"{shown(teacher)}, {name}", file=sys.stderr)
    notes = {"loss": by, "mode": mode, "teachers": [
        {"artefact": name, "network": teacher.name, "accuracy": teacher.accuracy}
        for name, teacher in found]}
    if stores is None:
        return Told(supervision, notes)
    replays = written(stores, options.file, distilled, members_of([t for _, t in found]), protocols)
    return Told(supervision, notes, list(zip(*replays)))


def _teachers(
    options: Any, distilled: DistilledSet, data: Split, store: ArtefactStore
) -> list[tuple[str, Teacher]]:
    """(name in the store, teacher) of each that is asked for."""
    from dd_jax.distill.taught import check_teacher
    from dd_jax.distill.teachers import KIND, stored_teacher, teacher

    asked = [word.strip() for word in options.teacher.split(",") if word.strip()]
    if not asked:
        raise ConfigError(f"teacher is {options.teacher!r}, which names none",
                          fix="pass --teacher train, or the name of an artefact")
    if asked != ["train"]:
        for name in _OF_TRAINING:
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')} is of a teacher that is trained, "
                                  "and --teacher names one that has been",
                                  fix="leave it out, or pass --teacher train")
        return [(word if "-" in word else f"{KIND}-{word}", stored_teacher(store, word))
                for word in asked]
    training = {} if options.teacher_epochs is None else {"epochs": options.teacher_epochs}
    made = [teacher(name.strip(), data, width=options.teacher_width, depth=options.teacher_depth,
                    seed=options.teacher_seed or 0, normaliser=distilled.normaliser, **training)
            for name in (options.teacher_network or "convnet").split(",")]
    for each in made:
        check_teacher(each.stand_in(), distilled.spec, distilled.normaliser)
    return [(f"{each.kind}-{each.address(data.train)}", store.get(each, data.train))
            for each in made]
