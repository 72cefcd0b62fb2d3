"""What a step is fed with: real images by their rows, and what a store on the host holds."""

from __future__ import annotations

import jax

from dd_jax.data.arrays import gather
from dd_jax.data.normalise import Normaliser, normalise
from dd_jax.types import Batch, HostRows, PyTree, RealData


def is_stored(rows: PyTree) -> bool:
    """Whether these are rows of a store on the host and not of the real set."""
    return isinstance(rows, HostRows)


def fetch(data: RealData, rows: PyTree) -> PyTree:
    """Stored images and labels at `rows`, one `Batch` for each leaf of `rows`.

    In the places of `HostRows` is what their store gives, read on the host while the program
    runs.
    """

    def one(rows):
        if not is_stored(rows):
            return Batch(*gather(data, rows), rows)
        store = rows.store
        return jax.pure_callback(store.read, store.like(rows.index), rows.index,
                                 vmap_method="sequential")

    return jax.tree.map(one, rows, is_leaf=is_stored)


def in_model_space(normaliser: Normaliser, batch: PyTree) -> PyTree:
    """What `fetch` gives, the images of every `Batch` normalised."""
    def one(part):
        if not isinstance(part, Batch):
            return part
        return part._replace(images=normalise(normaliser, part.images))

    return jax.tree.map(one, batch, is_leaf=lambda b: isinstance(b, Batch))
