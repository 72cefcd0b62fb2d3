"""Few soft labels at the beginning and at the end of a training, hard ones in between.

In soft epochs batches come from the store's pool, as of a pruned store. In hard ones they are new
views of the same rule, of epochs that nobody recorded, and their targets the set's own labels,
mixed as the images are and smoothed: (1 - eps) y + eps / K.

Source: HALD (ICML 2026), by its code: 75 soft, 150 hard and 75 soft epochs, eps = 0.8; soft labels
are softmax(z / 20) in float16 of views by RRC, mirror and CutMix in batches of 16, by a teacher
with the statistics of the batch. A store of that kind: store_settings("full", options=(("kind",
"probabilities"),), temperature=20.0, statistics="batch", mixing="cutmix@1.0", batch_size=16).

Differs from the official code in the soft loss, which is cross-entropy at temperature 20, equal to
its divergence but for a constant.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_kind, require_probability, require_whole
from dd_jax.labels.draws import Drawn, drawn_for
from dd_jax.labels.losses import cross_entropy
from dd_jax.labels.pruning import pool_draw
from dd_jax.labels.supervision import Supervision, Tempered, Views
from dd_jax.train.batches import Batches
from dd_jax.train.replay import Replay
from dd_jax.types import PyTree


class Heated(NamedTuple):
    """Targets with the temperature of the student's logits.

    Attributes:
      labels: [B, K].
      temperature: [B].
    """

    labels: jax.Array
    temperature: jax.Array


def heated_cross_entropy(logits: jax.Array, targets: Heated) -> jax.Array:
    """-sum_k t_k log softmax(logits / T)_k with a temperature for each row.

    Example:
      >>> told = Heated(jnp.array([[0.5, 0.5]]), jnp.array([20.0]))
      >>> heated_cross_entropy(jnp.array([[3.0, 3.0]]), told).round(4).tolist()
      [0.69...]
    """
    return cross_entropy(logits / targets.temperature[:, None], targets.labels)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class HardBetween(Replay):
    """A `Replay` in all epochs but first .. last - 1, which have hard labels; see the module.

    Attributes:
      first, last: the hard epochs, from `first` to before `last`.
      smoothing: eps of the hard labels.
      heat: temperature of the student's logits in soft epochs.
    """

    first: int = dataclasses.field(default=75, metadata=dict(static=True))
    last: int = dataclasses.field(default=225, metadata=dict(static=True))
    smoothing: float = dataclasses.field(default=0.8, metadata=dict(static=True))
    heat: float = dataclasses.field(default=1.0, metadata=dict(static=True))

    def drawn(self, batch: jax.Array) -> Drawn:
        """The views of batch 0..P - 1 of the store; after them, new ones by the same rule."""
        pool = self.batches_kept.shape[0]
        return jax.lax.cond(
            batch < pool, lambda: Replay.drawn(self, jnp.minimum(batch, pool - 1)),
            lambda: drawn_for(self.rule, self.key, self.rule.recorded + batch - pool))

    def batches(
        self, epochs: int, key: jax.Array, *, weights: jax.Array | None = None
    ) -> Batches:
        """As of a `Replay`, with new views in hard epochs."""
        rule, pool = self.rule, self.batches_kept.shape[0]
        plain = Replay.batches(self, epochs, key, weights=weights)

        def begin(epoch_key, epoch):
            epoch = jnp.asarray(epoch, jnp.int32)
            soft = jnp.where(epoch < self.first, epoch, epoch - (self.last - self.first))
            return jnp.where(
                self.is_hard(epoch), pool + epoch * rule.steps + jnp.arange(rule.steps),
                pool_draw(key, pool, jnp.maximum(soft, 0) * rule.steps, rule.steps))

        return plain._replace(begin=begin)

    def is_hard(self, epoch: jax.Array) -> jax.Array:
        """Whether an epoch has hard labels."""
        return (epoch >= self.first) & (epoch < self.last)

    @property
    def supervision(self) -> Supervision:
        """Stored or smoothed labels, with the temperature that belongs to each."""
        soft = Replay.supervision.fget(self)
        return Supervision(_Alternating(soft.targets, self.first, self.last, self.smoothing,
                                        self.heat, self.rule.size),
                           heated_cross_entropy, soft.arrays)


def hard_between(
    replayed: Replay, *, first: int = 75, last: int = 225, smoothing: float = 0.8
) -> HardBetween:
    """A training on a store with hard epochs in between.

    Args:
      replayed: of `store.replay`, whose loss is cross-entropy; its batches are drawn as a pool.
      first, last: the hard epochs, from `first` to before `last`.
      smoothing: eps in 0..1; 0.8 leaves 0.2 + 0.8 / K on the true class, tune it with K.

    Returns:
      A `HardBetween`, which `evaluate` and `fit` take as they take a `Replay`.

    Raises:
      ConfigError: epochs or a smoothing that cannot be, or another loss.
    """
    require_kind("replayed", replayed, Replay, expected="a Replay", fix="call store.replay")
    require_whole("first", first, least=0, example=75)
    require_whole("last", last, least=0, example=225)
    require_probability("smoothing", smoothing)
    if last < first:
        raise ConfigError(f"hard epochs go from {first} to {last}", fix="pass first <= last")
    loss, heat = replayed.loss, 1.0
    if isinstance(loss, Tempered):
        loss, heat = loss.loss, loss.temperature
    if loss is not cross_entropy:
        raise ConfigError("hard and soft labels are told by cross-entropy, and the replay has "
                          "another loss", fix="leave the loss of store.replay out")
    own = {field.name: getattr(replayed, field.name) for field in dataclasses.fields(Replay)}
    return HardBetween(**{**own, "order": "pool", "loss": cross_entropy}, first=first, last=last,
                       smoothing=float(smoothing), heat=float(heat))


@dataclasses.dataclass(frozen=True)
class _Alternating:
    soft: object
    first: int
    last: int
    smoothing: float
    heat: float
    size: int

    def __call__(self, arrays: PyTree, views: Views) -> Heated:
        labels, _ = arrays
        stored = next(iter(labels.values())).shape[0] * self.size
        rows = jnp.minimum(views.rows, stored - 1)
        soft = self.soft(arrays, views._replace(rows=rows))
        own = jnp.asarray(views.labels)
        if jnp.issubdtype(own.dtype, jnp.integer):
            own = jax.nn.one_hot(own, soft.shape[-1])
        hard = (1 - self.smoothing) * own + self.smoothing / own.shape[-1]
        is_hard = (views.epoch >= self.first) & (views.epoch < self.last)
        heat = jnp.where(is_hard, 1.0, self.heat)
        return Heated(jnp.where(is_hard, hard, soft), jnp.broadcast_to(heat, rows.shape))
