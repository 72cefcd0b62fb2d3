"""Which images of the synthetic set every step of an inner loop takes.

A plan is a function (key, size M, steps N) -> rows [N, B] int32, or None for the whole set in every
step, which then needs no gathering. Sets are class-major: the rows of class c are c * ipc onwards.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole

Plan = Callable[[jax.Array, int, int], "jax.Array | None"]


def batch_plan(key: jax.Array, size: int, batch_size: int | None, steps: int) -> jax.Array | None:
    """The rows of every step's batch: random permutations of the set, one after another, cut up.

    After any number of steps no image was used more than once more often than another. Where the
    batch size divides the set's, a batch holds distinct rows and every size / batch_size steps
    make a pass; where it does not, a batch may begin in one permutation and end in the next, and
    then hold a row twice. A longer plan begins with the shorter one of the same key.

    Args:
      key: typed PRNG key.
      size: M, images of the set.
      batch_size: B; None or at least M for the whole set in every step.
      steps: N, at least 1.

    Returns:
      [N, B] int32 rows, or None for the whole set, which then needs no gathering.

    Raises:
      ConfigError: a number that is not whole or not positive.

    Example:
      >>> plan = batch_plan(jax.random.key(0), 6, 2, steps=3)
      >>> sorted(plan.ravel().tolist())
      [0, 1, 2, 3, 4, 5]
      >>> batch_plan(jax.random.key(0), 6, None, steps=3) is None
      True
    """
    require_whole("size", size, example=10)
    require_whole("steps", steps, example=50)
    if batch_size is not None:
        require_whole("batch_size", batch_size, example=100)
    if batch_size is None or batch_size >= size:
        return None
    passes = jnp.arange(-(-steps * batch_size // size))
    rows = jax.vmap(lambda i: jax.random.permutation(jax.random.fold_in(key, i), size))(passes)
    return rows.ravel()[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def permuted(batch_size: int | None) -> Plan:
    """`batch_plan` as a plan.

    Args:
      batch_size: B; None for the whole set.

    Returns:
      A `Plan`.

    Raises:
      ConfigError: B is not a whole number of at least 1.
    """
    if batch_size is not None:
        require_whole("inner batch_size", batch_size, example=100)
    return lambda key, size, steps: batch_plan(key, size, batch_size, steps)


def class_rows(classes: int, per_class: int, *, chosen: int | None = None) -> Plan:
    """As many images of every class in each step, drawn anew without replacement.

    Args:
      classes: K.
      per_class: images of a class in a step; all of them where a class has no more.
      chosen: classes in a step, a random subset; None for all.

    Returns:
      A `Plan`; a longer one begins with the shorter one of the same key.

    Raises:
      ConfigError: a number that cannot be; when used, a size that K classes cannot share.

    Example:
      >>> plan = class_rows(2, 1)(jax.random.key(0), 6, 4)
      >>> (plan // 3).tolist()
      [[0, 1], [0, 1], [0, 1], [0, 1]]
    """
    require_whole("classes", classes, example=10)
    require_whole("images per_class of a step", per_class, example=1)
    require_whole("chosen", classes if chosen is None else chosen, example=classes)
    if chosen is not None and chosen > classes:
        raise ConfigError(f"chosen is {chosen} of {classes} classes",
                          fix=f"pass chosen={classes} or None")
    chosen = classes if chosen is None else chosen

    def plan(key: jax.Array, size: int, steps: int) -> jax.Array | None:
        each = _shared(size, classes)
        count = min(per_class, each)
        if chosen == classes and count == each:
            return None

        def one(i):
            rows_key, class_key = jax.random.split(jax.random.fold_in(key, i))
            inside = jax.lax.top_k(jax.random.uniform(rows_key, (classes, each)), count)[1]
            rows = inside + each * jnp.arange(classes)[:, None]
            if chosen < classes:
                rows = rows[jnp.sort(jax.random.permutation(class_key, classes)[:chosen])]
            return rows.reshape(-1).astype(jnp.int32)

        return jax.vmap(one)(jnp.arange(steps))

    return plan


def stored_order(classes: int, per_class: int) -> Plan:
    """The set's batches one after another, again and again: order is part of such a set.

    Step s takes batch b = s mod (ipc / per_class), whose rows are c * ipc + b * per_class + j with
    j < per_class, class by class.

    Args:
      classes: K.
      per_class: images of each class in a batch.

    Returns:
      A `Plan` that uses no key.

    Raises:
      ConfigError: a number that cannot be; when used, a set that cannot be cut into such batches.

    Example:
      >>> stored_order(2, 1)(None, 4, 3).tolist()
      [[0, 2], [1, 3], [0, 2]]

    Source: Wang et al., Dataset Distillation, 2018.
    """
    require_whole("classes", classes, example=10)
    require_whole("images per_class of a batch", per_class, example=1)

    def plan(key: jax.Array | None, size: int, steps: int) -> jax.Array | None:
        each = _shared(size, classes)
        if each % per_class:
            raise ConfigError(f"{each} images of a class cannot be cut into batches of "
                              f"{per_class}", fix="pass a number of batches that divides ipc")
        if each == per_class:
            return None
        batch = jnp.arange(steps)[:, None, None] % (each // per_class)
        rows = (each * jnp.arange(classes)[:, None] + batch * per_class
                + jnp.arange(per_class))
        return rows.reshape(steps, -1).astype(jnp.int32)

    return plan


def _shared(size: int, classes: int) -> int:
    """Images of each class in a class-major set."""
    if size % classes:
        raise ConfigError(f"the set has {size} images, which {classes} classes cannot share",
                          fix="pass a class-major set with as many images of every class")
    return size // classes
