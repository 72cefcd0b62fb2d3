"""A training on exactly the views that a store has labels of: how `fit` is told to show them.

Rows of such a training are not images but records, views that are numbered batch by batch: `take`
finds the image of each and what was drawn for it, `views` shows it, targets are the stored labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_above_zero, require_whole, unknown
from dd_jax.labels.calibrated import Rule, calibrated
from dd_jax.labels.codecs import Codec
from dd_jax.labels.draws import Drawn, ViewRule, drawn_for, from_arrays, show
from dd_jax.labels.losses import Loss, cross_entropy, require_loss
from dd_jax.labels.pruning import pool_draw
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.train.batches import Batches
from dd_jax.types import PyTree

ORDERS = ("recorded", "pool")


class Shown(NamedTuple):
    """What travels with the images of a batch: what is drawn for them, and the set's own labels."""

    drawn: Drawn
    labels: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replay:
    """A store, held in memory as it is stored, and the way in which a training follows it.

    A pytree: passed to a compiled function its arrays travel as arguments. `evaluate` takes it in
    the place of a `Supervision`; to `fit` it gives the arguments of `arguments`.

    Attributes:
      labels: name -> [P, B, ...], coded.
      shared: name -> what all labels share.
      draws: name -> [P, ...], what was drawn; empty where the key draws it again.
      batches_kept: [P] int32, the recorded batch that each is.
      key: the store's PRNG key.
      rule, codec: of views and labels.
      loss: (logits, targets) -> [B].
      temperature: of the stored logits, a number or a function of the epoch, see `targets`.
      order: "recorded": epoch e takes the batches of recorded epoch e, in their order; "pool": it
        takes batches at random, each once before any comes again, see `labels.pruning.pool_draw`.
      calibration: of unreliable labels, such as FerKD's, see `labels.calibrated`; None for none.
    """

    labels: Mapping[str, jax.Array]
    shared: Mapping[str, jax.Array]
    draws: Mapping[str, jax.Array]
    batches_kept: jax.Array
    key: jax.Array
    rule: ViewRule = dataclasses.field(metadata=dict(static=True))
    codec: Codec = dataclasses.field(metadata=dict(static=True))
    loss: Loss = dataclasses.field(default=cross_entropy, metadata=dict(static=True))
    temperature: float | Callable = dataclasses.field(default=1.0, metadata=dict(static=True))
    order: str = dataclasses.field(default="recorded", metadata=dict(static=True))
    calibration: Rule | None = dataclasses.field(default=None, metadata=dict(static=True))

    def drawn(self, batch: jax.Array) -> Drawn:
        """The views of batch 0..P - 1 of the store."""
        if self.draws:
            return from_arrays(self.rule, {name: x[batch] for name, x in self.draws.items()})
        return drawn_for(self.rule, self.key, self.batches_kept[batch])

    def take(self, plain: Callable) -> Callable:
        """The `take` of `fit` for records, from that of the set."""
        def of_records(records):
            drawn = self.drawn(records[0] // self.rule.size)
            images, labels = plain(drawn.rows)
            return images, Shown(drawn, labels)

        return of_records

    def views(self, key: jax.Array, images: jax.Array, shown: Shown) -> tuple[jax.Array, PyTree]:
        """The `views` of `fit`: nothing is drawn, `key` is not used."""
        return show(self.rule, shown.drawn, images, shown.labels)

    def batches(
        self, epochs: int, key: jax.Array, *, weights: jax.Array | None = None
    ) -> Batches:
        """The `batches` of `fit`.

        Args:
          epochs: of the training.
          key: PRNG key of the draw from the pool.
          weights: [M] by which the images of the set count.

        Returns:
          A `Batches` of records.
        """
        rule, pool = self.rule, self.batches_kept.shape[0]

        def begin(epoch_key, epoch):
            start = epoch * rule.steps
            if self.order == "pool":
                return pool_draw(key, pool, start, rule.steps)
            return start + jnp.arange(rule.steps, dtype=jnp.int32)

        def rows(order, step_key, step):
            batch = order[step]
            counted = None if weights is None else weights[self.drawn(batch).rows]
            return batch * rule.size + jnp.arange(rule.size, dtype=jnp.int32), counted

        return Batches(epochs, rule.steps, begin, rows)

    @property
    def supervision(self) -> Supervision:
        """The `supervision` of `fit`: targets of records are their stored labels."""
        told = Supervision(_Decoded(self.codec, self.rule.size, self.temperature,
                                    _wants_logits(self.loss)),
                           self.loss, (self.labels, self.shared))
        return told if self.calibration is None else calibrated(told, self.calibration)

    def arguments(
        self, take: Callable, epochs: int, key: jax.Array, *, weights: jax.Array | None = None
    ) -> dict[str, Any]:
        """The arguments of `fit` that show what is stored: take, batches, views, supervision."""
        return dict(take=self.take(take), views=self.views, supervision=self.supervision,
                    batches=self.batches(epochs, key, weights=weights))


def check_replay(
    rule: ViewRule, codec: Codec, *, epochs: int, order: str, loss: Loss,
    temperature: float | Callable,
) -> None:
    """Refuses a training that a store does not have the views or the labels for.

    Args:
      rule, codec: of the store.
      epochs: of the training.
      order, loss, temperature: as of `Replay`.

    Raises:
      ConfigError: more epochs than are stored, all batches of pruned epochs, a loss of logits on
        labels that are not one number for each class, or a temperature at or below 0.

    Example:
      >>> from dd_jax.labels.codecs import Full
      >>> rule = ViewRule(4, (8, 8, 1), epochs=2)
      >>> check_replay(rule, Full(2), epochs=3, order="recorded", loss=cross_entropy,
      ...              temperature=1.0)
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: ... 3 epochs, and the store has views of 2; ...
    """
    require_whole("epochs", epochs, example=rule.epochs)
    require_loss(loss)
    if order not in ORDERS:
        raise unknown("order of stored views", order, ORDERS)
    if order == "recorded" and rule.batches < rule.recorded:
        raise ConfigError(f"the store keeps {rule.batches} of {rule.recorded} batches, and its "
                          "epochs have gaps", fix="pass order='pool'")
    if order == "recorded" and epochs > rule.epochs:
        raise ConfigError(f"the training has {epochs} epochs, and the store has views of "
                          f"{rule.epochs}", fix=f"pass epochs={rule.epochs}, or order='pool' to "
                          "draw from them again, or store more")
    if not callable(temperature):
        require_above_zero("temperature", temperature, why="logits are divided by it", example=1.0)
    if not _wants_logits(loss):
        return
    if codec.kind != "logits" or not codec.dense:
        raise ConfigError("the loss compares logits, and the store has "
                          + ("those of a few classes" if codec.kind == "logits"
                             else "probabilities"),
                          fix="use a loss of probabilities, such as cross_entropy, or store full, "
                              "quantised or low-rank logits")
    if temperature != 1.0:
        raise ConfigError(f"temperature is {temperature!r}, and the loss takes plain logits",
                          fix="pass temperature=1.0, and the loss its own")


@dataclasses.dataclass(frozen=True)
class _Decoded:
    """Labels of records: softmax(logits / temperature), or what is stored as it is."""

    codec: Codec
    size: int
    temperature: float | Callable
    logits: bool

    def __call__(self, arrays: PyTree, views: Views) -> jax.Array:
        labels, shared = arrays
        place = views.rows // self.size, views.rows % self.size
        found = self.codec.decode({**{name: x[place] for name, x in labels.items()}, **shared})
        if self.logits or self.codec.kind == "probabilities":
            return found
        heat = self.temperature(views.epoch) if callable(self.temperature) else self.temperature
        return jax.nn.softmax(found / heat)


def _wants_logits(loss: Loss) -> bool:
    return getattr(loss, "targets", "probabilities") == "logits"
