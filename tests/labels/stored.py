"""A small set of five classes, teachers of it, and stores of its views."""

from __future__ import annotations

import functools

import jax
import numpy as np

from dd_jax import nets
from dd_jax.data.normalise import identity
from dd_jax.labels.store_settings import store_settings
from dd_jax.run.relabel import relabel
from dd_jax.store import DistilledSet
from dd_jax.types import DataSpec, SyntheticSet

SHAPE, CLASSES, COUNT = (8, 8, 1), 5, 12
SPEC = DataSpec("five", SHAPE, CLASSES, tuple("abcde"))
NETWORK = nets.mlp(SPEC, width=8)
SMALL = dict(epochs=3, batch_size=6, mixing="cutmix@1.0")


@functools.cache
def distilled(seed=0) -> DistilledSet:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(COUNT, *SHAPE)).astype(np.float32)
    labels = (np.arange(COUNT) % CLASSES).astype(np.int32)
    return DistilledSet(SyntheticSet(images, labels), identity(SHAPE), "classes", SPEC)


@functools.cache
def teacher(seed=0, norm=None):
    network = NETWORK if norm is None else nets.convnet(SPEC, depth=1, width=4, norm=norm)
    variables = network.init(jax.random.key(seed))
    return network, jax.tree.map(lambda x: 3 * x if norm is None else x, variables)


def store_at(path, name="full", *, source=None, teachers=None, key=7, together=None, **changes):
    return relabel(path, source or distilled(), teachers or teacher(),
                   store_settings(name, **{**SMALL, **changes}), key=key, together=together,
                   show_progress=False)
