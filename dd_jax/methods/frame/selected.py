"""Distillations that start from chosen real images: `start="herding"` and the like.

The choice is an artefact of its own, by the pixels in model space: whatever networks a method has,
the same images are shared by all that ask for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.backend import memory_bound
from dd_jax.data import Normaliser, gather, normalise
from dd_jax.distill.selection_needs import chosen
from dd_jax.select import OF_FEATURES, Budget, counts_of
from dd_jax.select.selector import sizes_of, within
from dd_jax.store.artefacts import Artefact
from dd_jax.synthetic import check_start, targets
from dd_jax.types import RealData, SyntheticSet

NEED = "start"


def check_any_start(name: str, data: RealData, ipc: int) -> None:
    """`synthetic.check_start`, which knows no selectors.

    Raises:
      ConfigError, DataError: as there.
    """
    if name in OF_FEATURES:
        counts_of(Budget(ipc), data)
    else:
        check_start(name, data, ipc)


def start_needs(
    name: str, data: RealData, ipc: int, normaliser: Artefact, *, memory: int | None = None
) -> Mapping[str, Artefact]:
    """The chosen rows that a start of that name needs; nothing for all others.

    Raises:
      ConfigError: pixels of a class that have no room in so many bytes of memory.
    """
    if name not in OF_FEATURES:
        return {}
    sizes = sizes_of(data, Budget(ipc), width=math.prod(data.spec.shape))
    selector, _ = within(OF_FEATURES[name](), sizes, memory_bound(memory))
    return {NEED: chosen(name, selector, data, Budget(ipc), settings={},
                         needs={"normaliser": normaliser})}


def rows_start(
    rows: np.ndarray, normaliser: Normaliser, *, kind: str, scale: float = 1.0,
    temperature: bool = False,
) -> Callable[[RealData, jax.Array], SyntheticSet]:
    """A start that is these real images; labels and temperature are as for `class_start`.

    Example:
      >>> from dd_jax.data import from_arrays, identity
      >>> data = from_arrays(np.uint8([[[0]], [[255]]]), [0, 1])
      >>> begin = rows_start(np.array([1]), identity((1, 1, 1)), kind="one_hot")
      >>> begin(data, None).images.ravel().tolist(), begin(data, None).labels.tolist()
      ([1.0], [[0.0, 1.0]])
    """
    def begin(data: RealData, key: jax.Array) -> SyntheticSet:
        images, labels = gather(data, rows)
        return SyntheticSet(normalise(normaliser, images),
                            targets(labels, data.spec.num_classes, kind=kind, scale=scale),
                            log_temperature=jnp.zeros(()) if temperature else None)

    return begin
