"""A test whose networks are trained on stored views: what of a protocol it keeps, and refuses."""

from __future__ import annotations

from typing import Any

from dd_jax.errors import ConfigError, SetFileError
from dd_jax.evaluate.protocol import Protocol
from dd_jax.labels.store_settings import StoreSettings, store_settings
from dd_jax.store import DistilledSet
from dd_jax.train.replay import Replay, check_replay


def settings_for(name: str, protocol: Protocol, **changes: Any) -> StoreSettings:
    """The store whose views are those of a protocol, epoch by epoch.

    Args:
      name: "full", "top5", "quant4", "pruned10", ..., see `labels.store_settings.store_settings`.
      protocol: gives epochs, batch size, augmentation and mixing.
      **changes: fields of `StoreSettings` that are otherwise.

    Returns:
      The settings, for `run.relabel`.

    Raises:
      ConfigError: a name that cannot be read, or batches that are blended at times and at times
        not, which no store has.

    Example:
      >>> from dd_jax.evaluate.protocol import protocol
      >>> settings_for("top5", protocol("dc", epochs=7, cutmix=0.5)).mixing
      'cutmix@0.5'
    """
    plan, views = protocol.plan, protocol.views
    blended = getattr(views, "mixup", 0.0)
    if blended not in (0.0, 1.0):
        raise ConfigError(f"protocol {protocol.name!r} has mixup {blended}, and stored views are "
                          "all blended or none", fix="pass mixup=1.0")
    mixing = "mixup@1.0" if blended else f"cutmix@{views.cutmix}" if views.cutmix else "none"
    return store_settings(name, **{
        "epochs": plan.epochs, "batch_size": plan.batch_size, "mixing": mixing,
        "augmentation": views.augmentation, **changes})


def check_replayed(replay: Replay, distilled: DistilledSet, protocol: Protocol) -> None:
    """Refuses, before anything is trained, a protocol that shows other views than are stored.

    A store's views take the place of the protocol's, and its batches that of the batch size; the
    protocol names the same ones, so that a table of results tells the truth.

    Raises:
      SetFileError: labels for another number of images or classes, or another shape.
      ConfigError: another augmentation or mixing, an order that is not "random", or more epochs
        than are stored.
    """
    rule, views = replay.rule, protocol.views
    found = rule.images, rule.shape, replay.codec.classes
    wanted = (distilled.synthetic.images.shape[0], distilled.spec.shape,
              distilled.spec.num_classes)
    if found != wanted:
        raise SetFileError(f"the store has labels for (images, shape, classes) {found}, the set "
                           f"has {wanted}", fix="take the store that was written for this set")
    if protocol.plan.order != "random":
        raise ConfigError(f"protocol {protocol.name!r} takes batches in order "
                          f"{protocol.plan.order!r}, and stored views have their own",
                          fix="pass order='random'")
    if rule.augmentation != views.augmentation:
        raise ConfigError(f"protocol {protocol.name!r} augments by {views.augmentation!r}, the "
                          f"stored views by {rule.augmentation!r}",
                          fix=f"pass augmentation={rule.augmentation!r}")
    kind, _, strength = rule.mixing.partition("@")
    shares = {"cutmix": float(strength or 1.0) if kind == "cutmix" else 0.0,
              "mixup": 1.0 if kind == "mixup" else 0.0}
    for name, wanted in shares.items():
        asked = getattr(views, name, wanted)
        if asked != wanted:
            raise ConfigError(f"protocol {protocol.name!r} has {name} {asked}, the stored views "
                              f"are mixed by {rule.mixing!r}", fix=f"pass {name}={wanted}")
    check_replay(rule, replay.codec, epochs=protocol.plan.epochs, order=replay.order,
                 loss=replay.loss, temperature=replay.temperature)


def refuse_replay(supervision: object) -> None:
    """Refuses stored views for images that are not those of their set.

    Raises:
      ConfigError: as said.
    """
    if isinstance(supervision, Replay):
        raise ConfigError("stored views are of one set, and this test trains on other images",
                          fix="call evaluate(distilled, ..., supervision=...) for their set, or "
                              "pass a teacher")
