"""What a step is fed with: real images by their rows, and what a store on the host holds."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import jax

from dd_jax.data.arrays import gather
from dd_jax.data.normalise import Normaliser, normalise
from dd_jax.errors import DDJaxError
from dd_jax.types import Batch, HostRows, PyTree, RealData

_refusals: list[DDJaxError] = []  # of stores that were read inside a program


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
        return jax.pure_callback(_Reading(store), store.like(rows.index), rows.index,
                                 vmap_method="sequential")

    return jax.tree.map(one, rows, is_leaf=is_stored)


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Gives what a store refused inside a program, which turns it into an error of the runtime.

    Raises:
      DDJaxError: what the store said, in place of the runtime's error.
    """
    _refusals.clear()
    # JAX logs a traceback of what it passes on.
    last = [logging.lastResort] if logging.lastResort else []
    handlers = [*logging.getLogger("jax").handlers, *logging.root.handlers, *last]
    for handler in handlers:
        handler.addFilter(_is_no_refusal)
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not _refusals:
            raise
        raise _refusals.pop() from error
    finally:
        for handler in handlers:
            handler.removeFilter(_is_no_refusal)


class _Reading:
    """`store.read` that notes what it refuses; one per store, as far as a cache can tell."""

    def __init__(self, store):
        self.store = store

    def __eq__(self, other):
        return isinstance(other, _Reading) and other.store is self.store

    def __hash__(self):
        return id(self.store)

    def __call__(self, index: PyTree) -> PyTree:
        try:
            return self.store.read(index)
        except DDJaxError as refusal:
            _refusals.append(refusal)
            raise


def _is_no_refusal(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], DDJaxError))


def in_model_space(normaliser: Normaliser, batch: PyTree) -> PyTree:
    """What `fetch` gives, the images of every `Batch` normalised."""
    def one(part):
        if not isinstance(part, Batch):
            return part
        return part._replace(images=normalise(normaliser, part.images))

    return jax.tree.map(one, batch, is_leaf=lambda b: isinstance(b, Batch))
