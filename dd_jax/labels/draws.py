"""Which views a store has labels of: every draw a pure function of (key, epoch, step).

In an epoch each image is seen once, in the order of a permutation that is cut into batches of equal
size; what is left over is dropped. A batch has one draw of the augmentation for each image and one
of the mixing. A store keeps the key alone, and the views cost nothing, or what was drawn.

Differs from the official codes of FKD and LPLD: draws are kept in the smallest types that hold
them (booleans, 16-bit integers, half precision) and the teacher looks at what was kept, so that
the student sees the same view to the bit whichever way it is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.augment.checks import check_shape
from dd_jax.augment.mixing import mixing
from dd_jax.augment.table import by_name
from dd_jax.errors import ConfigError, require_whole, unknown
from dd_jax.labels.codecs import smallest
from dd_jax.labels.codecs.codec import Shapes
from dd_jax.labels.pruning import check_ratio_kept, kept_count
from dd_jax.types import PyTree

RULE_VERSION = 1  # of all that is drawn here; a store of another one is refused
MOST_BATCHES = 200_000  # each has a hash in the header of a store's file
MOST_RECORDED = 2**24  # of which a pruned store chooses its own
KEPT = ("key", "draws")
_ORDER, _DRAW, _MIX, _PRUNED = range(4)


@dataclasses.dataclass(frozen=True)
class ViewRule:
    """Views of a set, without the key that draws them.

    Attributes:
      images: M, of the set.
      shape: (H, W, C).
      augmentation: a name in `augment.by_name`.
      mixing: as `augment.mixing` reads it.
      epochs: E, that are recorded.
      batch_size: images of a batch at most; batches are as equal as they can be, B images each.
      pruned: the share of batches that is left out.
      kept: "key", or "draws" where rows and parameters are written down.

    Raises:
      ConfigError: a field that cannot be.

    Example:
      >>> rule = ViewRule(images=500, shape=(8, 8, 1), epochs=3, batch_size=256, pruned=0.5)
      >>> rule.size, rule.steps, rule.recorded, rule.batches
      (250, 2, 6, 3)
    """

    images: int
    shape: tuple[int, int, int]
    augmentation: str = "inception"
    mixing: str = "none"
    epochs: int = 300
    batch_size: int = 256
    pruned: float = 0.0
    kept: str = "key"

    def __post_init__(self):
        for name in ("images", "epochs", "batch_size"):
            require_whole(name, getattr(self, name), example=100)
        object.__setattr__(self, "shape", check_shape(self.shape))
        by_name(self.augmentation, self.shape)
        mixing(self.mixing)
        check_ratio_kept(self.pruned)
        if self.kept not in KEPT:
            raise unknown("way of keeping views", self.kept, KEPT)
        if max(self.shape) > 2**15 - 1 or self.recorded * self.size > 2**31 - 1 \
                or self.batches > MOST_BATCHES or self.recorded > MOST_RECORDED:
            raise ConfigError(f"a store of {self.batches} batches of views of images of shape "
                              f"{self.shape} is too large to number",
                              fix="store fewer epochs, in larger batches")

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.images // min(self.batch_size, self.images))

    @property
    def size(self) -> int:
        """B, images of a batch."""
        return self.images // self.steps

    @property
    def recorded(self) -> int:
        """Batches of all epochs."""
        return self.epochs * self.steps

    @property
    def batches(self) -> int:
        """P, batches that are kept."""
        return kept_count(self.recorded, self.pruned)


class Drawn(NamedTuple):
    """The views of a batch.

    Attributes:
      rows: [B] int32, of the images in the set.
      draw: parameters of the augmentation, one for each image.
      mix: parameters of the mixing.
    """

    rows: jax.Array
    draw: PyTree
    mix: PyTree


def order_of(rule: ViewRule, key: jax.Array, epoch: jax.Array) -> jax.Array:
    """[M] int32, the order of the images in an epoch.

    Example:
      >>> sorted(order_of(ViewRule(3, (2, 2, 1)), jax.random.key(0), 5).tolist())
      [0, 1, 2]
    """
    order = jax.random.permutation(_key(key, _ORDER, epoch), rule.images)
    return order.astype(jnp.int32)


def drawn_in(
    rule: ViewRule, key: jax.Array, order: jax.Array, epoch: jax.Array, step: jax.Array
) -> Drawn:
    """The views of a step of an epoch whose order is known; rounded to what a store keeps.

    Example:
      >>> rule, key = ViewRule(4, (2, 2, 1), batch_size=2), jax.random.key(0)
      >>> drawn_in(rule, key, order_of(rule, key, 0), 0, 1).rows.shape
      (2,)
    """
    rows = jax.lax.dynamic_slice(order, (step * rule.size,), (rule.size,))
    draw_key, mix_key = (jax.random.fold_in(_key(key, use, epoch), step) for use in (_DRAW, _MIX))
    drawn = Drawn(rows, by_name(rule.augmentation, rule.shape).draw(draw_key, rule.size),
                  mixing(rule.mixing).draw(mix_key, rule.size, rule.shape))
    return from_arrays(rule, to_arrays(rule, drawn)) if rule.kept == "draws" else drawn


def drawn_for(rule: ViewRule, key: jax.Array, batch: jax.Array) -> Drawn:
    """The views of recorded batch `batch`, which is epoch * steps + step."""
    epoch, step = batch // rule.steps, batch % rule.steps
    return drawn_in(rule, key, order_of(rule, key, epoch), epoch, step)


def pruned_batches(rule: ViewRule, key: jax.Array) -> jax.Array:
    """[P] int32 ascending, which of the recorded batches are kept; all without pruning.

    Example:
      >>> pruned_batches(ViewRule(4, (2, 2, 1), epochs=6, pruned=0.5), jax.random.key(0)).shape
      (3,)
    """
    if rule.batches == rule.recorded:
        return jnp.arange(rule.recorded, dtype=jnp.int32)
    chosen = jax.random.permutation(jax.random.fold_in(key, _PRUNED), rule.recorded)
    return jnp.sort(chosen[: rule.batches]).astype(jnp.int32)


def show(
    rule: ViewRule, drawn: Drawn, images: jax.Array, labels: PyTree
) -> tuple[jax.Array, PyTree]:
    """The views of images [B, H, W, C] as they were drawn, and labels [B, K] mixed alike.

    Labels that are whole numbers, or none, are left as they are.

    Example:
      >>> rule, key = ViewRule(4, (2, 2, 1), "none"), jax.random.key(0)
      >>> drawn = drawn_for(rule, key, 0)
      >>> show(rule, drawn, jnp.ones((4, 2, 2, 1)), None)[0].shape
      (4, 2, 2, 1)
    """
    images = by_name(rule.augmentation, rule.shape).apply(drawn.draw, images)
    free = isinstance(labels, jax.Array) and jnp.issubdtype(labels.dtype, jnp.floating)
    told = labels if free else jnp.zeros((images.shape[0], 1), images.dtype)
    images, told = mixing(rule.mixing).apply(drawn.mix, images, told)
    return images, told if free else labels


def like_drawn(rule: ViewRule) -> Drawn:
    """Shapes and dtypes of the views of a batch, as they are drawn."""
    def drawn(key):
        return Drawn(jnp.zeros((rule.size,), jnp.int32),
                     by_name(rule.augmentation, rule.shape).draw(key, rule.size),
                     mixing(rule.mixing).draw(key, rule.size, rule.shape))

    return jax.eval_shape(drawn, jax.random.key(0))


def draw_shapes(rule: ViewRule) -> Shapes:
    """Name -> shape and dtype of what is kept of the views of a batch; nothing by the key.

    Example:
      >>> shapes = draw_shapes(ViewRule(500, (8, 8, 1), "inception_digits", kept="draws"))
      >>> shapes["rows"].dtype.name, shapes["draw.0.height"].dtype.name
      ('uint16', 'int16')
    """
    if rule.kept == "key":
        return {}
    return {name: jax.ShapeDtypeStruct(leaf.shape, _small(name, leaf.dtype, rule))
            for name, leaf in _named(like_drawn(rule))}


def to_arrays(rule: ViewRule, drawn: Drawn) -> dict[str, jax.Array]:
    """The views of a batch in the types of `draw_shapes`."""
    return {name: leaf.astype(_small(name, leaf.dtype, rule)) for name, leaf in _named(drawn)}


def from_arrays(rule: ViewRule, arrays: Mapping[str, jax.Array]) -> Drawn:
    """The views of a batch from what was kept of them."""
    like = like_drawn(rule)
    leaves = [jnp.asarray(arrays[name]).astype(leaf.dtype) for name, leaf in _named(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def probe(rule: ViewRule, key: jax.Array) -> list[float]:
    """A few numbers that change where the rule, an augmentation or the generator of draws does.

    Returns:
      What is drawn for the first image of the first and of the last recorded batch.

    Example:
      >>> rule = ViewRule(4, (8, 8, 1), "inception_digits")
      >>> probe(rule, jax.random.key(0)) == probe(rule, jax.random.key(1))
      False
    """
    found: list[float] = []
    for batch in (0, rule.recorded - 1):
        for leaf in jax.tree.leaves(jax.jit(drawn_for, static_argnums=0)(rule, key, batch)):
            found.append(float(np.asarray(leaf, np.float32).reshape(-1)[0]))
    return found


def rule_card(rule: ViewRule) -> dict[str, Any]:
    """What a file says of its views, JSON-able."""
    return {**dataclasses.asdict(rule), "shape": list(rule.shape), "rule_version": RULE_VERSION}


def _key(key: jax.Array, use: int, epoch: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, use), epoch)


def _small(name: str, dtype: Any, rule: ViewRule) -> np.dtype:
    """The type in which a leaf is kept."""
    if name == "rows":
        return smallest(rule.images)
    if name.endswith("partner"):
        return smallest(rule.size)
    if jnp.issubdtype(dtype, jnp.floating):
        return np.dtype("float16")
    return np.dtype("int16" if jnp.issubdtype(dtype, jnp.integer) else dtype)


def _named(tree: Drawn) -> list[tuple[str, Any]]:
    """The leaves of a tree by their paths, such as "draw.0.height"."""
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]
