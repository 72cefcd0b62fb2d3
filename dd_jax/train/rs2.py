"""Repeated sampling of random subsets: every round of a training takes another part of the set.

Of N images and a share r a round takes m = floor(r N) rows S_j:

  with replacement       S_j is a subset drawn anew, every one equally likely
  without replacement    with L = ceil(N / m) blocks of one permutation of the set, round j takes
                         block j mod L, and after L rounds there is a new permutation

The last block is the tail, the N - (L - 1) m rows that the others left: nothing is forgotten. So
without replacement X rounds are ordinary training over X / L epochs. A schedule of the rate has to
count the steps of `rs2_steps`, not those of training on all images.

Source: Okanovic et al., Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning,
ICLR 2024. It counts whole batches only; here the last batch of a round is filled up with rows of
weight 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, require_whole, told
from dd_jax.train.batches import Batches


def rs2_size(size: int, share: float) -> int:
    """m, the images of a round.

    Args:
      size: N, images of the set.
      share: r, in (0, 1].

    Raises:
      ConfigError: a share that cannot be, or that leaves no image.

    Example:
      >>> rs2_size(100, 0.29)
      29
    """
    require_whole("size", size, example=60_000)
    good = isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1
    if not good:
        raise ConfigError(f"share is {told(share)}, expected a number above 0 and at most 1",
                          fix="pass share=0.1")
    count = int(round(share * size, 9))  # 0.29 * 100 is below 29 in floating point
    if count == 0:
        raise ConfigError(f"a share of {share} of {size} images is none",
                          fix=f"pass share={1 / size:.3g} or more")
    return count


def rs2_rows(
    key: jax.Array, size: int, share: float, number: int | jax.Array, *, replace: bool
) -> tuple[jax.Array, jax.Array]:
    """The images of one round, a pure function of the key and of the round's number.

    Args:
      key: PRNG key of all rounds.
      size: N, images of the set.
      share: r.
      number: of the round, from 0; also traced.
      replace: whether rounds draw with replacement, see above.

    Returns:
      (rows [m] int32, all distinct; [m] bool, False for those that only fill up the tail).

    Raises:
      ConfigError: see `rs2_size`.

    Example:
      >>> rounds = [rs2_rows(jax.random.key(0), 5, 0.4, j, replace=False) for j in range(3)]
      >>> sorted(row for rows, counted in rounds for row in rows[counted].tolist())
      [0, 1, 2, 3, 4]
    """
    count = rs2_size(size, share)
    if replace:
        order = jax.random.permutation(jax.random.fold_in(key, number), size)
        return order[:count].astype(jnp.int32), jnp.ones((count,), bool)
    blocks = -(-size // count)
    order = jax.random.permutation(jax.random.fold_in(key, number // blocks), size)
    place = number % blocks * count + jnp.arange(count)
    return order[place % size].astype(jnp.int32), place < size


def rs2(
    key: jax.Array, size: int, share: float, batch_size: int, rounds: int | jax.Array, *,
    replace: bool = True,
) -> Batches:
    """The batches of `fit` where every round takes another subset; an epoch of it is a round.

    Args:
      key: PRNG key of the subsets; the order of `fit` is not used.
      size: N, images of the set.
      share: r, of the set in each round.
      batch_size: images per step; a smaller subset goes whole.
      rounds: X.
      replace: whether rounds draw with replacement, see above.

    Returns:
      A `Batches`; a tail takes fewer steps than other rounds.

    Raises:
      ConfigError: a size or a share that cannot be.

    Example:
      >>> batches = rs2(jax.random.key(0), 10, 0.4, 2, rounds=3, replace=False)
      >>> [int(batches.steps(number)) for number in range(3)]
      [2, 2, 1]
    """
    count, batch_size, full, blocks, tail = _sizes(size, share, batch_size)
    whole = count % batch_size == 0 and (replace or size % count % batch_size == 0)

    def steps(number):
        return jnp.where(number % blocks == blocks - 1, tail, full)

    def begin(unused, number):
        return rs2_rows(key, size, share, number, replace=replace)

    def rows(subset, unused, step):
        taken, counted = subset
        place = step * batch_size + jnp.arange(batch_size)
        weights = None if whole else ((place < count) & counted[place % count]).astype(jnp.float32)
        return taken[place % count], weights

    return Batches(rounds, full if replace or tail == full else steps, begin, rows)


def rs2_steps(
    size: int, share: float, batch_size: int, rounds: int, *, replace: bool = True
) -> int:
    """Steps of the optimizer in all rounds of `rs2`, which a schedule of the rate has to count.

    Args:
      size, share, batch_size, rounds, replace: as for `rs2`.

    Raises:
      ConfigError: a number that cannot be.

    Example:
      >>> rs2_steps(10, 0.4, 2, rounds=4, replace=False)
      7
    """
    require_whole("rounds", rounds, example=200)
    _, _, full, blocks, tail = _sizes(size, share, batch_size)
    return rounds * full if replace else rounds * full - rounds // blocks * (full - tail)


def _sizes(size: int, share: float, batch_size: int) -> tuple[int, int, int, int, int]:
    """(m, images per step, steps of a round, blocks, steps of the tail)."""
    require_whole("batch_size", batch_size, example=128)
    count = rs2_size(size, share)
    batch_size, blocks = min(batch_size, count), -(-size // count)
    left = size - (blocks - 1) * count
    return count, batch_size, -(-count // batch_size), blocks, -(-left // batch_size)
