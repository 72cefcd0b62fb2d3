"""Where a synthetic set starts: real images, noise or class means."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.data import check_classes, gather, normalise, real_rows, require_on_device
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import require_whole, unknown
from dd_jax.synthetic.labels import class_major_labels, targets
from dd_jax.synthetic.multi_formation import paste
from dd_jax.types import RealData, SyntheticSet


def from_real(data: RealData, normaliser: Normaliser, key: jax.Array, ipc: int) -> jax.Array:
    """Random distinct real images of each class, [K * ipc, H, W, C] in model space."""
    images, _ = gather(data, real_rows(data, key, ipc))
    return normalise(normaliser, images)


def from_noise(data: RealData, normaliser: Normaliser, key: jax.Array, ipc: int) -> jax.Array:
    """Standard normal pixels in model space."""
    return jax.random.normal(key, (data.spec.num_classes * ipc, *data.spec.shape))


def from_class_means(data: RealData, normaliser: Normaliser, key: jax.Array, ipc: int):
    """The mean image of each class; with ipc above 1, means of random halves of the class."""
    require_on_device(data, "start 'class_means'")
    keys = jax.random.split(key, data.spec.num_classes * ipc)
    labels = class_major_labels(data.spec.num_classes, ipc)

    def mean(args):
        k, label = args
        count = data.class_counts[label]
        share = 1.0 if ipc == 1 else 0.5
        chosen = jax.random.bernoulli(k, share, data.class_rows.shape[1:])
        weights = chosen & (jnp.arange(data.class_rows.shape[1]) < count)
        images, _ = gather(data, data.class_rows[label])
        weights = weights.astype(jnp.float32) / jnp.maximum(weights.sum(), 1)
        return jnp.einsum("n,nhwc->hwc", weights, normalise(normaliser, images))

    return jax.lax.map(mean, (keys, labels))


STARTS: dict[str, Callable[..., jax.Array]] = {
    "real": from_real,
    "noise": from_noise,
    "class_means": from_class_means,
}


def check_start(name: str, data: RealData, ipc: int) -> None:
    """Checks a start before anything compiles.

    Raises:
      ConfigError: if the name is unknown, or `ipc` below 1.
      DataError: if a class is empty, or has fewer than `ipc` images and the start is "real".
    """
    if name not in STARTS:
        raise unknown("initialisation", name, STARTS)
    require_whole("ipc", ipc)
    check_classes(data, at_least=ipc if name == "real" else 1)


def start_images(
    name: str, data: RealData, *, normaliser: Normaliser, key: jax.Array, ipc: int
) -> jax.Array:
    """Initial synthetic images by name.

    Args:
      name: "real", "noise" or "class_means".
      data: the real set.
      normaliser: of the run.
      key: PRNG key.
      ipc: images per class, at least 1.

    Returns:
      [K * ipc, H, W, C] float32 in model space, class-major.

    Raises:
      ConfigError: unknown name. `check_start` refuses the rest; call it outside jit.

    Example:
      >>> import numpy as np
      >>> import jax, numpy as np
      >>> from dd_jax import data as dd_data
      >>> real = dd_data.from_arrays(np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> start_images("noise", real, normaliser=dd_data.standardise(real),
      ...              key=jax.random.key(0), ipc=1).shape
      (2, 2, 2, 1)
    """
    if name not in STARTS:
        raise unknown("initialisation", name, STARTS)
    return STARTS[name](data, normaliser, key, ipc)


def class_start(
    name: str,
    *,
    normaliser: Normaliser,
    ipc: int,
    kind: str,
    scale: float = 1.0,
    temperature: bool = False,
) -> Callable[[RealData, jax.Array], SyntheticSet]:
    """The start of most methods: images by name, with the hard labels of their classes.

    Args:
      name, normaliser, ipc: as for `start_images`.
      kind, scale: of the labels, see `targets`.
      temperature: whether a log-temperature of 0 is learned along.

    Returns:
      (data, key) -> SyntheticSet, a recipe's `initialise`.
    """

    def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
        classes = data.spec.num_classes
        labels = targets(class_major_labels(classes, ipc), classes, kind=kind, scale=scale)
        images = start_images(name, data, normaliser=normaliser, key=key, ipc=ipc)
        return SyntheticSet(images, labels, log_temperature=jnp.zeros(()) if temperature else None)

    return initialise


def pasted_start(
    normaliser: Normaliser,
    *,
    ipc: int,
    factor: int,
    interpolation: str = "nearest",
    choose: Callable[[RealData, jax.Array, int], jax.Array] = real_rows,
) -> Callable[[RealData, jax.Array], SyntheticSet]:
    """A start for `multi_formation`: factor^2 real images of a class shrunk into each stored one.

    Args:
      normaliser: of the run.
      ipc: stored images per class.
      factor, interpolation: as for `paste`.
      choose: (data, key, count) -> [K * count] rows, class-major, of the real images.

    Returns:
      (data, key) -> SyntheticSet with one-hot labels, a recipe's `initialise`.
    """

    def initialise(data: RealData, key: jax.Array) -> SyntheticSet:
        classes = data.spec.num_classes
        rows = choose(data, key, ipc * factor**2)
        images = normalise(normaliser, gather(data, rows)[0])
        labels = targets(class_major_labels(classes, ipc), classes, kind="one_hot")
        return SyntheticSet(paste(images, factor=factor, interpolation=interpolation), labels)

    return initialise
