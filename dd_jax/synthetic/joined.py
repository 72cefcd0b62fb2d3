"""Two synthetic sets as one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.types import SyntheticSet


def joined(first: SyntheticSet, second: SyntheticSet, classes: int) -> SyntheticSet:
    """Both sets, class by class: the images of a class are those of the first, then the second's.

    Args:
      first, second: class-major, with as many images for every class.
      classes: K.

    Returns:
      A class-major `SyntheticSet`; learning rate and temperature are the second's. Where only one
      has weights, images of the other weigh 1.

    Example:
      >>> one, two = (SyntheticSet(jnp.full((2, 1, 1, 1), i), jnp.eye(2)) for i in (1, 2))
      >>> joined(one, two, 2).images.ravel().tolist()
      [1, 2, 1, 2]
    """

    def both(a, b):
        parts = [x.reshape(classes, -1, *x.shape[1:]) for x in (a, b)]
        whole = jnp.concatenate(parts, axis=1)
        return whole.reshape(-1, *whole.shape[2:])

    weights = None
    if first.weights is not None or second.weights is not None:
        weights = both(*map(_weights, (first, second)))
    return second._replace(images=both(first.images, second.images),
                           labels=both(first.labels, second.labels), weights=weights)


def _weights(synthetic: SyntheticSet) -> jax.Array:
    if synthetic.weights is None:
        return jnp.ones(synthetic.images.shape[:1], jnp.float32)
    return synthetic.weights


def stage_rows(size: int, stages: int, classes: int) -> list[np.ndarray]:
    """Rows of the images that each stage has, in a set that `joined` put together stage by stage.

    Args:
      size: M, images of all stages, which classes and stages can share.
      stages: P.
      classes: K.

    Returns:
      P arrays of rows, class by class.

    Example:
      >>> [rows.tolist() for rows in stage_rows(4, 2, 2)]
      [[0, 2], [0, 1, 2, 3]]
    """
    rows, each = np.arange(size).reshape(classes, -1), size // (classes * stages)
    return [rows[:, : each * p].reshape(-1) for p in range(1, stages + 1)]


def stage_sets(whole: SyntheticSet, stages: int, classes: int) -> list[SyntheticSet]:
    """The sets S_1, S_1 + S_2, ..., that `joined` put together stage by stage.

    Args:
      whole: the last of them; a learning rate is [stages], one for each.
      stages: P.
      classes: K.

    Returns:
      P class-major sets, each with its own stage's rate.

    Example:
      >>> images = jnp.arange(4.0).reshape(4, 1, 1, 1)
      >>> whole = SyntheticSet(images, jnp.repeat(jnp.eye(2), 2, axis=0))
      >>> [s.images.ravel().tolist() for s in stage_sets(whole, 2, 2)]
      [[0.0, 2.0], [0.0, 1.0, 2.0, 3.0]]
    """
    return [
        whole._replace(
            images=whole.images[rows], labels=whole.labels[rows],
            weights=None if whole.weights is None else whole.weights[rows],
            learning_rate=None if whole.learning_rate is None else whole.learning_rate[p],
        )
        for p, rows in enumerate(stage_rows(whole.images.shape[0], stages, classes))
    ]
