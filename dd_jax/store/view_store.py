"""What a store of views says of itself, and a training on it: a `Replay`, with every refusal.

A store names its set by the hash of its images, each teacher by that of its variables, the
augmentation and the version of the rule by which views are drawn, and a few numbers of these draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import own_dtypes
from dd_jax.data import fingerprint
from dd_jax.errors import ConfigError, SetFileError, require_above_zero, require_kind
from dd_jax.labels.calibrated import Rule
from dd_jax.labels.codecs import Codec, codec_card, codec_from_card
from dd_jax.labels.draws import RULE_VERSION, ViewRule, probe, pruned_batches, rule_card
from dd_jax.labels.losses import Loss, cross_entropy
from dd_jax.labels.store_settings import StorePlan, StoreSettings
from dd_jax.labels.supervision import tempered
from dd_jax.store.container import content_hash
from dd_jax.store.envelope import differences
from dd_jax.store.label_store import images_hash
from dd_jax.store.record import Cost, DistilledSet
from dd_jax.store.view_file import SHARED, ViewStore, read_views
from dd_jax.train.replay import Replay, check_replay
from dd_jax.types import Network, PyTree, RealData

Teacher = tuple[Network, PyTree]
_AGAIN = "write a store for it with dd_jax.run.relabel"


def plan_of(settings: StoreSettings, source: DistilledSet | RealData) -> StorePlan:
    """The store of a set by these settings; its bytes are known before it is written.

    Raises:
      ConfigError: settings that do not fit the set.
    """
    images = len(source.labels if isinstance(source, RealData) else source.synthetic.images)
    return settings.plan(images, source.spec.shape, source.spec.num_classes)


def describe_views(
    plan: StorePlan, settings: StoreSettings, source: DistilledSet | RealData,
    teachers: Iterable[Teacher], key: jax.Array,
) -> dict[str, Any]:
    """What the file of such a store says of itself, JSON-able."""
    return {
        "views": rule_card(plan.rule), "codec": codec_card(plan.codec), "set": set_hash(source),
        "spec": {"name": source.spec.name, "classes": list(source.spec.class_names)},
        "teachers": [teacher_card(teacher) for teacher in teachers],
        "temperature": settings.temperature, "average": settings.average,
        "statistics": settings.statistics,
        "key": np.asarray(jax.random.key_data(key)).tolist(), "probe": probe(plan.rule, key)}


def set_hash(source: DistilledSet | RealData) -> str:
    """SHA-256 of the images of a set, or of what they are decoded from."""
    return fingerprint(source) if isinstance(source, RealData) else images_hash(source)


def teacher_card(teacher: Teacher) -> dict[str, str]:
    """A teacher by its network's name and the SHA-256 of its variables."""
    network, variables = teacher
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    named = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return {"network": network.name, "sha256": content_hash(named)}


def cost_with(distilled: DistilledSet, store: ViewStore) -> Cost:
    """Bytes of a set by part, with a store of views in the place of its own label store."""
    return distilled.cost_bytes._replace(label_store=store.bytes)


def views_of(
    store: ViewStore, source: DistilledSet | RealData | None = None
) -> tuple[ViewRule, Codec, jax.Array]:
    """(rule, codec, key) of a store; refuses what this release would draw or read otherwise.

    Args:
      store: as opened.
      source: a set whose images and classes have to be as many.

    Raises:
      SetFileError: another version of the rule, draws that come out otherwise, an unknown codec, or
        a description that does not fit the tensors.
    """
    said = store.description
    views = dict(said["views"]) if isinstance(said.get("views"), Mapping) else {}
    version = views.pop("rule_version", None)
    if version != RULE_VERSION:
        raise SetFileError(f"{store.path} has views by version {str(version)[:20]} of the rule "
                           f"that draws them, this release has {RULE_VERSION}",
                           fix="use the release that wrote it, or write it again")
    try:
        codec = codec_from_card(said.get("codec"))
        rule = ViewRule(**{**views, "shape": tuple(views["shape"])})
        key = jax.random.wrap_key_data(jnp.asarray(np.asarray(said["key"], np.uint32)))
    except (ConfigError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SetFileError(f"{store.path} describes its views in a way that cannot be: {error}",
                           fix="copy it again, or write it again") from error
    plan = StorePlan(rule, codec)
    same = {n: (s.shape, np.dtype(s.dtype)) for n, s in plan.shapes.items()}
    if same != {name: (s.shape, np.dtype(s.dtype)) for name, s in store.shapes.items()}:
        raise SetFileError(f"{store.path} holds other tensors than it says",
                           fix="copy it again, or write it again")
    if source is not None:
        _check_sizes(store, rule, codec, source)
    with own_dtypes():
        now, then = probe(rule, key), said.get("probe")
    numbers = isinstance(then, list) and all(
        type(x) in (int, float) and abs(x) < 2**53 for x in then)
    if not numbers or len(then) != len(now) or not np.allclose(now, then, rtol=1e-3, atol=1e-3):
        raise SetFileError(f"{store.path} was written where the augmentation {rule.augmentation!r} "
                           "or the generator of random numbers drew other views",
                           fix="use the versions that wrote it, or write it again")
    return rule, codec, key


def check_views(
    store: ViewStore,
    source: DistilledSet | RealData,
    *,
    teachers: Iterable[Teacher] | None = None,
    augmentation: str | None = None,
    mixing: str | None = None,
) -> None:
    """Refuses a store that is not that of this set, of these teachers or of this augmentation.

    Args:
      store: as opened.
      source: the set that is to be trained on.
      teachers: that it should be of; None for any.
      augmentation, mixing: names that it should be of; None for any.

    Raises:
      SetFileError: as said.
    """
    said = store.description
    if said.get("set") != set_hash(source):
        raise SetFileError(f"{store.path} has labels of another set: its images hash to "
                           f"{str(said.get('set'))[:12]}..., these to {set_hash(source)[:12]}...",
                           fix=f"take the set it was made for, or {_AGAIN}")
    if teachers is not None:
        wanted = [teacher_card(teacher) for teacher in teachers]
        if said.get("teachers") != wanted:
            raise SetFileError(f"{store.path} has labels of other teachers: "
                               f"{_short(said.get('teachers'))}, expected {_short(wanted)}",
                               fix=f"take the teachers that labelled it, or {_AGAIN}")
    views = said.get("views") if isinstance(said.get("views"), Mapping) else {}
    for name, value in (("augmentation", augmentation), ("mixing", mixing)):
        if value is not None and views.get(name) != value:
            raise SetFileError(f"{store.path} has views by {name} {views.get(name)!r}, expected "
                               f"{value!r}", fix=f"pass {name}={views.get(name)!r}, or {_AGAIN}")


def replay(
    store: ViewStore,
    source: DistilledSet | RealData,
    *,
    epochs: int,
    loss: Loss = cross_entropy,
    temperature: float | Callable | None = None,
    student_temperature: float | None = None,
    order: str | None = None,
    calibration: Rule | None = None,
    teachers: Iterable[Teacher] | None = None,
    augmentation: str | None = None,
    mixing: str | None = None,
) -> Replay:
    """A training on what a store holds; everything that does not fit is refused here.

    Args:
      store: as `open_views` opens it.
      source: the set that it labels.
      epochs: of the training.
      loss: (logits, targets) -> [B]; targets are probabilities, or the stored logits where its
        attribute `targets` says "logits".
      temperature: of the stored logits, a number or a function of the epoch such as
        `labels.pruning.Decay`; that of the store by default. Stored probabilities have their own.
      student_temperature: of the network's logits; by default `temperature` where it is a number,
        and 1 where it changes.
      order: "recorded" or "pool", see `Replay`; by default "pool" for a pruned store.
      calibration: of unreliable labels, see `labels.calibrated`; for losses of probabilities.
      teachers, augmentation, mixing: as for `check_views`.

    Returns:
      A `Replay`, in memory.

    Raises:
      SetFileError: a store of another set, teacher, augmentation or version, or a damaged one.
      ConfigError: epochs beyond those stored, a loss or temperature that does not fit.
    """
    require_kind("store", store, ViewStore, expected="a ViewStore",
                 fix="pass store.open_views(path)")
    check_views(store, source, teachers=teachers, augmentation=augmentation, mixing=mixing)
    rule, codec, key = views_of(store, source)
    own = store.description.get("temperature")
    if type(own) not in (int, float) or not 0 < own < 2**53:
        raise SetFileError(f"{store.path} says that its temperature is {str(own)[:20]!r}",
                           fix="copy it again, or write it again")
    wants_logits = getattr(loss, "targets", "probabilities") == "logits"
    if temperature is None:
        temperature = 1.0 if wants_logits else own
    if codec.kind == "probabilities" and temperature != own:
        raise ConfigError(f"temperature is {temperature!r}, and the store has probabilities at "
                          f"{own:g}", fix="leave temperature out, or store logits")
    if calibration is not None and wants_logits:
        raise ConfigError("a calibration is of probabilities, and the loss compares logits",
                          fix="use a loss of probabilities, such as cross_entropy")
    order = order or ("pool" if rule.batches < rule.recorded else "recorded")
    check_replay(rule, codec, epochs=epochs, order=order, loss=loss, temperature=temperature)
    if student_temperature is None:
        student_temperature = 1.0 if callable(temperature) else temperature
    require_above_zero("student_temperature", student_temperature, why="logits are divided by it",
                       example=1.0)
    arrays = {name: jnp.asarray(x) for name, x in read_views(store).items()}
    labels, shared = (_under(arrays, prefix) for prefix in ("labels.", SHARED))
    draws = {name: x for name, x in arrays.items() if not name.startswith(("labels.", SHARED))}
    with own_dtypes():
        kept = pruned_batches(rule, key)
    return Replay(labels, shared, draws, kept, key, rule, codec,
                  tempered(loss, student_temperature),
                  temperature, order, calibration)


def require_same(store: ViewStore, description: Mapping[str, Any]) -> None:
    """Refuses a store that was written by other settings than these.

    Raises:
      SetFileError: naming the settings that differ.
    """
    odd = differences(dict(store.description), dict(description))
    if odd:
        raise SetFileError(
            f"{store.path} is another store: " + "; ".join(
                f"{name} is {there} there, {asked} asked for" for name, there, asked in odd[:5]),
            fix="choose another path, or delete it")


def _check_sizes(
    store: ViewStore, rule: ViewRule, codec: Codec, source: DistilledSet | RealData
) -> None:
    images = len(source.labels if isinstance(source, RealData) else source.synthetic.images)
    found, wanted = ((rule.images, rule.shape, codec.classes),
                     (images, source.spec.shape, source.spec.num_classes))
    if found != wanted:
        raise SetFileError(f"{store.path} has labels for (images, shape, classes) {found}, the set "
                           f"has {wanted}", fix=f"take the set it was made for, or {_AGAIN}")


def _under(arrays: Mapping[str, jax.Array], prefix: str) -> dict[str, jax.Array]:
    return {n.removeprefix(prefix): x for n, x in arrays.items() if n.startswith(prefix)}


def _short(cards: Any) -> str:
    cards = cards if isinstance(cards, list) else []
    return ", ".join(f"{str(c.get('network'))[:20]} {str(c.get('sha256'))[:8]}"
                     for c in cards if isinstance(c, Mapping)) or "none"
