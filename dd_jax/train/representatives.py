"""Real images that represent their class: those nearest to the centres of its clusters.

For each class: features of its images, k-means, and of each centre the nearest image. They cover
the class evenly, where a random batch has its dense regions many times and misses others.

Differs from the official code: images go through the normaliser before the network, as in its
training (the official code embeds raw [0, 1] images); a fixed number of Lloyd's iterations.

Source: Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import in_chunks
from dd_jax.data import Normaliser, gather, normalise, require_on_device, rows_per_class
from dd_jax.errors import ConfigError, require_whole
from dd_jax.solvers.k_means import k_means, nearest_rows
from dd_jax.types import RealData

_CHUNK = 512  # images of a class in floats at a time, so that a large class needs little memory


def check_selection(
    count: int | None, *, candidates: int | None, iterations: int, subsample: int
) -> None:
    """Refuses settings of `representatives` that cannot be; a count of None is not known yet.

    Raises:
      ConfigError: a value that is no whole number or too small; fewer candidates than rows; a
        count that does not divide by subsample.
    """
    for name, value, least in (("count", count, 1), ("candidates", candidates, 1),
                               ("iterations", iterations, 0), ("subsample", subsample, 1)):
        if value is not None or name in ("iterations", "subsample"):
            require_whole(name, value, least=least, example=10)
    if count is None:
        return
    # As many clusters as candidates would be a costly random choice.
    if candidates is not None and (candidates < count or candidates <= count // subsample):
        raise ConfigError(f"candidates is {candidates}, too few for a choice of {count} rows of "
                          "each class", fix=f"pass candidates={4 * count} or more")
    if count % subsample:
        raise ConfigError(f"{count} rows of each class cannot come from clusters of "
                          f"subsample={subsample} rows each",
                          fix="pass a subsample that divides the real batch of a class")


def representatives(
    data: RealData,
    embed: Callable[[jax.Array], jax.Array],
    *,
    count: int,
    key: jax.Array,
    normaliser: Normaliser,
    candidates: int | None = None,
    iterations: int = 10,
    subsample: int = 1,
) -> jax.Array:
    """Rows of each class that are nearest to the centres of count / subsample clusters of it.

    Args:
      data: real set on the device, without empty classes.
      embed: (images [B, H, W, C] in model space) -> [B, P], each image by itself.
      count: rows per class, static. Of a smaller class each row is taken again.
      key: PRNG key of the candidates and of the start of k-means.
      normaliser: from stored images to model space.
      candidates: embed only so many random distinct rows of each class; None for all.
      iterations: of k-means.
      subsample: rows for each centre, the nearest ones.

    Returns:
      [K, count] int32. A row that is nearest to several centres is there several times.

    Raises:
      ConfigError: settings that cannot be, see `check_selection`; images not on the device.
      DataError: an empty class, where the set is not traced.

    Example:
      >>> import numpy as np
      >>> from dd_jax.data import from_arrays, identity
      >>> pixels = np.uint8([0, 4, 200, 3, 1, 204]).reshape(-1, 1, 1)
      >>> data = from_arrays(pixels, [0, 0, 0, 1, 1, 1])
      >>> rows = representatives(data, lambda x: x.reshape(-1, 1), count=2,
      ...                        key=jax.random.key(0), normaliser=identity((1, 1, 1)))
      >>> sorted(rows[0].tolist())[1], sorted(rows[1].tolist())[1]
      (2, 5)
    """
    check_selection(count, candidates=candidates, iterations=iterations, subsample=subsample)
    require_on_device(data, "the choice of representatives")
    candidate_key, cluster_key = jax.random.split(key)
    longest = data.class_rows.shape[1]
    size = longest if candidates is None else min(candidates, longest)
    rows = rows_per_class(data, candidate_key, size)

    def look(rows):
        return embed(normalise(normaliser, gather(data, rows)[0]))

    def one_class(args):
        rows, real, key = args
        valid = jnp.arange(size) < real  # the rest of a smaller class is repeated rows
        points = jax.lax.stop_gradient(in_chunks(look, rows, size=_CHUNK))
        clusters = k_means(points, count // subsample, key=key, valid=valid, iterations=iterations)
        return rows[nearest_rows(points, clusters.centres, valid, count=subsample)]

    # One class after another on every backend, so that the memory is that of one class.
    keys = jax.random.split(cluster_key, rows.shape[0])
    return jax.lax.map(one_class, (rows, data.class_counts, keys))
