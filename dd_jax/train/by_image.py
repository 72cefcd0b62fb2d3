"""A training that takes, for each image of its batches, one of its stored views at random.

With probability `plain` it is no stored view but a new one of the same augmentation, whose target
is the image's own label.

Sources: Shen and Xing, A Fast Knowledge Distillation Framework for Visual Recognition, ECCV 2022;
Faghri et al., Reinforce Data, Multiply Impact (Dataset Reinforcement), ICCV 2023, whose store has
the parameters of several hundred views of each image and ten probabilities of each
(store_settings("top10", kept="draws")), and whose plain share is 0.01.

Differs from the official codes: FKD shows several views of an image in one batch, here it is one;
Dataset Reinforcement also stores mixed views, which here only whole batches can show again; random
erasing and RandAugment are what the augmentations of this library have in their place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.augment.table import by_name
from dd_jax.errors import ConfigError, require_kind, require_probability
from dd_jax.labels.draws import from_arrays
from dd_jax.labels.supervision import Supervision, Views
from dd_jax.train.batches import Batches
from dd_jax.train.replay import Replay
from dd_jax.types import PyTree


class Chosen(NamedTuple):
    """What travels with the images of a batch.

    Attributes:
      draw: parameters of the augmentation of the stored views.
      stored: [B] bool, whether a view is a stored one.
      labels: the set's own.
    """

    draw: PyTree
    stored: jax.Array
    labels: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ByImage(Replay):
    """A `Replay` of single views and not of batches; see the module.

    Attributes:
      records: [M, E] int32, the records of each image, batch * B + place.
      plain: share of views that are not stored ones.
    """

    records: jax.Array | None = None
    plain: float = dataclasses.field(default=0.0, metadata=dict(static=True))

    @property
    def count(self) -> int:
        """Records of the store; record `count + row` is a new view of image `row`."""
        return self.rule.batches * self.rule.size

    def take(self, plain: Callable) -> Callable:
        """The `take` of `fit` for records, from that of the set."""
        def of_records(records):
            stored = records < self.count
            place = jnp.minimum(records, self.count - 1)
            flat = {name: x.reshape(self.count, *x.shape[2:])[place]
                    for name, x in self.draws.items()}
            drawn = from_arrays(self.rule, flat)
            images, labels = plain(jnp.where(stored, drawn.rows, records - self.count))
            return images, Chosen(drawn.draw, stored, labels)

        return of_records

    def views(self, key: jax.Array, images: jax.Array, chosen: Chosen) -> tuple[jax.Array, PyTree]:
        """The `views` of `fit`: what is stored, or else drawn by the key."""
        augmentation = by_name(self.rule.augmentation, self.rule.shape)
        draw = chosen.draw
        if self.plain:
            new = augmentation.draw(key, images.shape[0])
            draw = jax.tree.map(lambda old, new: jnp.where(
                chosen.stored.reshape(-1, *(1,) * (new.ndim - 1)), old, new), draw, new)

        def one(draw, image):  # by itself: an operation may be chosen for a whole batch
            return augmentation.apply(jax.tree.map(lambda leaf: leaf[None], draw), image[None])[0]

        return jax.vmap(one)(draw, images), chosen.labels

    def batches(
        self, epochs: int, key: jax.Array, *, weights: jax.Array | None = None
    ) -> Batches:
        """The `batches` of `fit`: every image once in each epoch, a record of each at random."""
        images, size = self.records.shape[0], self.rule.size

        def begin(epoch_key, epoch):
            return jax.random.permutation(epoch_key, images)

        def rows(order, step_key, step):
            row_key, plain_key = jax.random.split(step_key)
            mine = jax.lax.dynamic_slice(order, (step * size,), (size,))
            which = jax.random.randint(row_key, (size,), 0, self.records.shape[1])
            new = jax.random.bernoulli(plain_key, self.plain, (size,))
            records = jnp.where(new, self.count + mine, self.records[mine, which])
            return records.astype(jnp.int32), None if weights is None else weights[mine]

        return Batches(epochs, self.rule.steps, begin, rows)

    @property
    def supervision(self) -> Supervision:
        """Stored labels, and the set's own for views that are not stored."""
        stored = Replay.supervision.fget(self)
        return Supervision(_StoredOrOwn(stored.targets, self.count), stored.loss, stored.arrays)


def by_image(replayed: Replay, *, plain: float = 0.0) -> ByImage:
    """A training on single views of a store, each image's at random.

    Args:
      replayed: of `store.replay`, of a store that keeps draws, without mixing and pruning, and
        whose batches hold all images of an epoch.
      plain: share of views that are not stored ones; 0.01 in Dataset Reinforcement.

    Returns:
      A `ByImage`, which `evaluate` and `fit` take as they take a `Replay`.

    Raises:
      ConfigError: a store of which single views cannot be shown, or no probability.
    """
    require_kind("replayed", replayed, Replay, expected="a Replay", fix="call store.replay")
    require_probability("plain", plain)
    rule = replayed.rule
    lacks = {"keeps draws": rule.kept == "draws", "mixes nothing": rule.mixing.startswith("none"),
             "is not pruned": rule.batches == rule.recorded,
             "has batches that divide the set": rule.images == rule.size * rule.steps}
    for name, fine in lacks.items():
        if not fine:
            raise ConfigError(f"single views are shown of a store that {name}, and this one is "
                              f"another: {rule}", fix="replay its batches, or store it that way")
    rows = jnp.asarray(replayed.draws["rows"]).astype(jnp.int32).reshape(-1)
    records = jnp.argsort(rows, stable=True).astype(jnp.int32).reshape(rule.images, rule.epochs)
    own = {field.name: getattr(replayed, field.name) for field in dataclasses.fields(Replay)}
    return ByImage(**{**own, "order": "pool"}, records=records, plain=float(plain))


@dataclasses.dataclass(frozen=True)
class _StoredOrOwn:
    stored: Callable[[PyTree, Views], jax.Array]
    count: int

    def __call__(self, arrays: PyTree, views: Views) -> jax.Array:
        rows = jnp.minimum(views.rows, self.count - 1)
        told = self.stored(arrays, views._replace(rows=rows))
        own = jnp.asarray(views.labels)
        if jnp.issubdtype(own.dtype, jnp.integer):
            own = jax.nn.one_hot(own, told.shape[-1])
        return jnp.where((views.rows < self.count)[:, None], told, own)
