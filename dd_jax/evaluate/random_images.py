"""Random real images for a budget, the baseline of every set."""

from __future__ import annotations

import math
from typing import Union

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import gather, real_rows, rows_per_class
from dd_jax.errors import ConfigError, DataError
from dd_jax.store import DistilledSet
from dd_jax.types import RealData

_SHARE = 1
Budget = Union[float, tuple[int, ...]]


def named_classes(distilled: DistilledSet) -> np.ndarray | None:
    """[M] int32, the classes of a set whose labels are hard; None where they are learned or soft.

    A label is hard where one of its entries is above all others, and these are equal.
    """
    if distilled.label_kind == "classes":
        return distilled.hard_labels
    labels = np.sort(np.asarray(distilled.synthetic.labels), axis=1)
    if distilled.label_kind == "representations" or labels.shape[1] < 2:
        return None
    hard = (labels[:, 0] == labels[:, -2]) & (labels[:, -2] < labels[:, -1])
    return distilled.hard_labels if hard.all() else None


def budget(distilled: DistilledSet) -> Budget:
    """How many random images are a fair comparison with a set, as `random_images` takes it.

    Returns:
      The set's images per class; or how many it has of each class, where it stores its images, has
      hard labels, and classes differ.

    Example:
      >>> from dd_jax.data.normalise import identity
      >>> from dd_jax.types import DataSpec, SyntheticSet
      >>> whole = SyntheticSet(np.zeros((3, 1, 1, 1), np.float32), np.array([1, 0, 1], np.int32))
      >>> spec = DataSpec("toy", (1, 1, 1), 2, ("a", "b"))
      >>> budget(DistilledSet(whole, identity(spec.shape), "classes", spec))
      (1, 2)
    """
    size, classes = distilled.synthetic.images.shape[0], distilled.spec.num_classes
    named = named_classes(distilled) if round(distilled.ipc * classes, 6) == size else None
    if named is None:
        return distilled.ipc
    counts = np.bincount(named, minlength=classes)
    return distilled.ipc if np.ptp(counts) == 0 else tuple(counts.tolist())


def has_random(distilled: DistilledSet, data: RealData) -> bool:
    """Whether there are as many real images of each class as the set has."""
    wanted = np.asarray(budget(distilled))
    return bool(wanted.sum() > 0 and (wanted <= np.asarray(data.class_counts)).all())


def random_images(data: RealData, key: jax.Array, ipc: Budget) -> tuple[jax.Array, jax.Array]:
    """Distinct real images, class-major: `ipc` of each class.

    Of a fraction, the whole images that it makes for all classes together are shared out: some
    classes, drawn by the key, have one more than others, or one where others have none.

    Args:
      data: the real set.
      key: PRNG key.
      ipc: images per class, above 0; one image at least is given. Or a tuple: of each class.

    Returns:
      (images [M, H, W, C] as stored, classes [M] int32), M = floor(ipc K).

    Raises:
      DataError: a class has fewer images than are asked for.
      ConfigError: numbers of images that cannot be.

    Example:
      >>> from dd_jax.data import load_embedded
      >>> random_images(load_embedded().train, jax.random.key(0), 0.3)[0].shape
      (3, 28, 28, 1)
    """
    if isinstance(ipc, tuple):
        return gather(data, _rows_of_each(data, key, ipc))
    classes, most = data.spec.num_classes, math.ceil(ipc)
    rows = real_rows(data, key, most)
    total = max(1, math.floor(round(ipc * classes, 6)))
    if total < most * classes:
        turn = jax.random.permutation(jax.random.fold_in(key, _SHARE), classes)
        turns = jnp.arange(most) * classes + turn[:, None]  # everybody's first, everybody's second
        rows = rows[jnp.sort(jnp.argsort(turns.reshape(-1))[:total])]
    return gather(data, rows)


def _rows_of_each(data: RealData, key: jax.Array, counts: tuple[int, ...]) -> jax.Array:
    wanted, there = np.asarray(counts), np.asarray(data.class_counts)
    if wanted.shape != there.shape or (wanted < 0).any() or not wanted.any():
        raise ConfigError(f"images of each class are {counts}, expected {len(there)} whole numbers "
                          "of at least 0", fix="give one number for each class")
    if (wanted > there).any():
        worst = int(np.argmax(wanted - there))
        raise DataError(f"{data.spec.name}: class {worst} ({data.spec.class_names[worst]}) has "
                        f"{there[worst]} images, expected at least {wanted[worst]}",
                        fix="ask for fewer images of it")
    rows = rows_per_class(data, key, int(wanted.max()))
    return rows[np.arange(wanted.max()) < wanted[:, None]]
