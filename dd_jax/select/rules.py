"""Rules that choose by one number for each image, and the one that looks at nothing."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.select.selector import Chosen


def unweighted(places: jax.Array, count: int) -> Chosen:
    """The first `count` places, each with weight 1."""
    return Chosen(places[:count].astype(jnp.int32), jnp.ones((count,), jnp.float32))


def top(scores: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None) -> Chosen:
    """The largest scores, the largest first; of equal ones the first.

    Example:
      >>> top(jnp.array([1.0, 3.0, 2.0]), jnp.ones(3, bool), 2).rows.tolist()
      [1, 2]
    """
    return unweighted(jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True), count)


def bottom(scores: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None) -> Chosen:
    """The smallest scores, the smallest first; of equal ones the first."""
    return top(-scores, valid, count)


def middle(scores: jax.Array, valid: jax.Array, count: int, key: jax.Array | None = None) -> Chosen:
    """A window in the middle of the sorted scores, from its middle outwards.

    Of n sorted images the window starts at (n - count) // 2, so a larger one holds a smaller one.

    Example:
      >>> middle(jnp.array([5.0, 1.0, 4.0, 2.0]), jnp.ones(4, bool), 3).rows.tolist()
      [3, 2, 1]
    """
    order = jnp.argsort(jnp.where(valid, scores, jnp.inf), stable=True)
    place = jnp.arange(len(order))
    size = jnp.sum(valid)
    far = jnp.where(place < size, jnp.abs(2 * place - size + 1), 2 * len(order))
    return unweighted(order[jnp.argsort(far, stable=True)], count)


def anything(known: jax.Array, valid: jax.Array, count: int, key: jax.Array) -> Chosen:
    """Every subset of that size equally likely; what is known counts nothing."""
    return top(jax.random.uniform(key, valid.shape), valid, count)


ORDERS: dict[str, Callable[..., Chosen]] = {"top": top, "middle": middle, "bottom": bottom}
