"""Which images every step of `fit` takes.

A `Batches` has so many epochs of so many steps; what an epoch needs, such as its permutation, is
computed once before its first step. `train.plans` makes the rows of inner loops in one array, which
`planned` takes; `train.rs2` has those of repeated random subsets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.types import PyTree


class Batches(NamedTuple):
    """The batches of a training.

    Attributes:
      epochs: of the training; also traced, [] int32.
      steps: of each epoch; also traced, or a function of the epoch's number.
      begin: (key, epoch [] int32) -> what the steps of this epoch share.
      rows: (what they share, key, step [] int32, from 0 in each epoch) -> (rows [B] int32, weights
        [B] float32). Rows None are the whole set in its order; weights None are all 1.
    """

    epochs: int | jax.Array
    steps: int | jax.Array | Callable[[jax.Array], jax.Array]
    begin: Callable[[jax.Array, jax.Array], PyTree]
    rows: Callable[..., tuple[jax.Array | None, jax.Array | None]]


def permuted_epochs(size: int, batch_size: int, epochs: int | jax.Array = 1) -> Batches:
    """Every image once in each epoch, in a new order.

    Where the batch size does not divide the set's, the last batch is filled with rows that repeat
    others and weigh 0.

    Args:
      size: M, images of the set.
      batch_size: images per step; a smaller set goes whole.
      epochs: passes over the set.

    Returns:
      A `Batches`.

    Example:
      >>> batches = permuted_epochs(5, 3)
      >>> order = batches.begin(jax.random.key(0), 0)
      >>> batches.rows(order, None, 1)[1].tolist()
      [1.0, 1.0, 0.0]
    """
    batch_size = min(batch_size, size)

    def begin(key, epoch):
        return jax.random.permutation(key, size).astype(jnp.int32)

    def rows(order, key, step):
        position = step * batch_size + jnp.arange(batch_size)
        weights = (position < size).astype(jnp.float32) if size % batch_size else None
        return order[position % size], weights

    return Batches(epochs, -(-size // batch_size), begin, rows)


def random_batches(size: int, batch_size: int | None, steps: int | jax.Array) -> Batches:
    """Distinct images in each step, every subset equally likely, whatever steps before it had.

    Args:
      size: M, images of the set.
      batch_size: images per step; None, or a smaller set, for the whole set in its order.
      steps: how many.

    Returns:
      A `Batches` of one epoch.

    Example:
      >>> rows, _ = random_batches(3, 2, steps=1).rows((), jax.random.key(0), 0)
      >>> len(set(rows.tolist()))
      2
    """
    def rows(shared, key, step):
        if batch_size is None or batch_size >= size:
            return None, None
        # Floats, not raw bits: the CPU has a fast partial sort for float32 only.
        noise = jax.random.uniform(key, (size,), jnp.float32)
        return jax.lax.top_k(noise, batch_size)[1].astype(jnp.int32), None

    return Batches(1, steps, _nothing, rows)


def planned(rows: jax.Array | None, *, epochs: int, steps: int) -> Batches:
    """The batches of a plan that is there beforehand, such as those of `train.plans`.

    Args:
      rows: [epochs * steps, B] int32, or None for the whole set in every step.
      epochs, steps: epochs, and steps of each.

    Returns:
      A `Batches`.

    Example:
      >>> planned(jnp.array([[0, 1], [2, 3]]), epochs=1, steps=2).rows(0, None, 1)[0].tolist()
      [2, 3]
    """
    def begin(key, epoch):
        return epoch

    def of_step(epoch, key, step):
        return (None if rows is None else rows[epoch * steps + step]), None

    return Batches(epochs, steps, begin, of_step)


def _nothing(key, epoch):
    return ()
