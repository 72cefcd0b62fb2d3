"""What objectives that match a class's real and synthetic images have in common."""

from __future__ import annotations

import jax

from dd_jax.backend import in_chunks
from dd_jax.data import rows_per_class, rows_uniform
from dd_jax.errors import ConfigError
from dd_jax.synthetic import targets
from dd_jax.train.built import require_built
from dd_jax.types import Batch, Network, Pool, PyTree, RealData, SyntheticSet

# Parts of a batch that are class by class: what is matched, and what only counts the classes.
CLASS_WISE = ("match", "one_of_each")


def check_pool(pool: Pool, *, real: bool = False) -> None:
    """Checks the pool of an objective.

    Args:
      pool: what the user gave.
      real: whether the objective gives the pool real images.

    Raises:
      ConfigError: if it is not a `Pool`, or if it looks at real images and is given none.
    """
    require_built("pool", pool, Pool)
    if pool.watches and not real:
        raise ConfigError("the pool looks at real images, which this objective does not give it",
                          fix="pass another one, such as pools.inner_trained_pool")


def matched_rows(data: RealData, key: jax.Array, batch_size: int, train_rows: int) -> PyTree:
    """Rows [K, batch_size], or {"match": those, "train": [train_rows] of any class}."""
    match_key, train_key = jax.random.split(key)
    rows = rows_per_class(data, match_key, batch_size)
    if not train_rows:
        return rows
    return {"match": rows, "train": rows_uniform(data, train_key, train_rows)}


def real_as_set(batch: Batch, num_classes: int) -> SyntheticSet:
    """Real images as a set that networks can be trained on."""
    return SyntheticSet(batch.images, targets(batch.labels, num_classes, kind="one_hot"))


def pool_features(
    network: Network, pool: Pool, state: PyTree, images: jax.Array, key: jax.Array,
    *, chunk: int | None = None,
) -> jax.Array:
    """Features [B, P] of images [B, H, W, C] by a network of the pool, without derivative."""
    variables = pool.draw(state, key)
    embedded = in_chunks(lambda x: network.apply(variables, x).features, images, size=chunk)
    return jax.lax.stop_gradient(embedded)


def at_most(part: SyntheticSet, key: jax.Array, most: int | None) -> SyntheticSet:
    """A random choice of `most` images of a class that has more."""
    count = part.images.shape[0]
    if most is None or most >= count:
        return part
    rows = jax.random.permutation(key, count)[:most]
    return part._replace(images=part.images[rows], labels=part.labels[rows])


def by_class(synthetic: SyntheticSet, count: int) -> SyntheticSet:
    """Images [count, n, H, W, C] and labels [count, n, K] of each class, and nothing else."""
    return SyntheticSet(*(x.reshape(count, -1, *x.shape[1:])
                          for x in (synthetic.images, synthetic.labels)))


def require_several_classes(count: int, why: str, *, instead: str) -> None:
    """Checks that there are several classes, for a loss that lives on what tells them apart.

    Args:
      count: K.
      why: what becomes of the loss.
      instead: what to do without other data.

    Raises:
      ConfigError: if there is one class.
    """
    if count < 2:
        raise ConfigError(f"the data has {count} class, expected at least 2: {why}",
                          fix=f"pass data of several classes, or {instead}")


def require_all_classes(count: int, synthetic: SyntheticSet, why: str) -> None:
    """Checks that a loss is given all classes, where they belong together.

    Raises:
      ConfigError: if it is given some of them only, as by `class_by_class`.
    """
    if count != synthetic.labels.shape[-1]:
        raise ConfigError(f"got {count} of {synthetic.labels.shape[-1]} classes, but {why}",
                          fix="leave class_by_class (in_turn) out")
