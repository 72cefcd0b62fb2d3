"""The label stores of a command: a teacher's labels of views, written once beside the set."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dd_jax.evaluate import Protocol
    from dd_jax.labels.losses import NamedLoss, WeightedSum
    from dd_jax.labels.store_settings import StoreSettings
    from dd_jax.store import DistilledSet
    from dd_jax.store.view_store import Teacher
    from dd_jax.train.replay import Replay


class Stores(NamedTuple):
    """What is stored for the protocols of a command, before it is written.

    Attributes:
      name: as on the command line, such as "top5".
      settings: of each protocol.
      loss: against what is stored.
    """

    name: str
    settings: Sequence[StoreSettings]
    loss: NamedLoss | WeightedSum


def asked_for(
    name: str, loss: str | None, distilled: DistilledSet, protocols: Sequence[Protocol], *,
    mode: str,
) -> Stores:
    """The stores that an option asks for; refuses what cannot be replayed.

    Args:
      name: of the option --label-store.
      loss: of --supervision; by default KL at 4 of stored logits, or the cross-entropy to stored
        probabilities.
      distilled: the set.
      protocols: by which its students are trained.
      mode: of the teachers' batch normalisation.

    Raises:
      ConfigError: as said, with the losses that would fit.
    """
    from dd_jax.evaluate.replayed import settings_for
    from dd_jax.labels.losses import parse
    from dd_jax.store.view_store import plan_of
    from dd_jax.train.replay import check_replay

    settings = [settings_for(name, protocol, statistics=mode) for protocol in protocols]
    plans = [plan_of(each, distilled) for each in settings]
    dense = all(plan.codec.kind == "logits" and plan.codec.dense for plan in plans)
    by = parse(loss or ("kl@4" if dense else "cross_entropy"))
    for plan, protocol in zip(plans, protocols):
        order = "pool" if plan.rule.batches < plan.rule.recorded else "recorded"
        check_replay(plan.rule, plan.codec, epochs=protocol.plan.epochs, order=order, loss=by,
                     temperature=1.0)
    return Stores(name, settings, by)


def written(
    stores: Stores, file: pathlib.Path, distilled: DistilledSet, teachers: Sequence[Teacher],
    protocols: Sequence[Protocol],
) -> tuple[list[Replay], list[Mapping[str, Any]]]:
    """The stores as trainings, one for each protocol, and what files say of them.

    A store that is there already, of the same set, teachers and views, is used as it is.

    Raises:
      SetFileError, CheckpointError, RunStopped: as `run.relabel`.
    """
    from dd_jax.backend import as_key
    from dd_jax.run.relabel import relabel
    from dd_jax.store.envelope import header_hash
    from dd_jax.store.view_store import describe_views, plan_of, replay

    replays, notes = [], []
    for settings, protocol in zip(stores.settings, protocols):
        said = describe_views(plan_of(settings, distilled), settings, distilled, teachers,
                              as_key(0))
        place = file.with_name(f"{file.stem}.{stores.name}-{header_hash(said)[:8]}"
                               ".views.safetensors")
        there = place.exists()
        made = relabel(place, distilled, list(teachers), settings, key=0)
        print(f"label store {place.name}: {made.bytes:,} bytes, "
              + ("reused" if there else "written"), file=sys.stderr)
        replays.append(replay(made, distilled, epochs=protocol.plan.epochs, loss=stores.loss))
        notes.append({"name": stores.name, "file": place.name, "bytes": made.bytes})
    return replays, notes
