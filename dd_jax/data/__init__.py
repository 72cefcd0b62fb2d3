"""Real data: readers, validation, normalisers and samplers."""

from __future__ import annotations

from dd_jax.data.arrays import (
    as_index,
    check_classes,
    fingerprint,
    from_arrays,
    gather,
    require_on_device,
    rows_of_classes,
)
from dd_jax.data.cifar import read_cifar10, read_cifar100
from dd_jax.data.embedded import load_embedded
from dd_jax.data.fit import NORMALISERS, normalisers, standardise, zca
from dd_jax.data.folder import from_folder
from dd_jax.data.idx import read_idx, read_idx_pair
from dd_jax.data.normalise import (
    Normaliser,
    denormalise,
    from_tensors,
    grey,
    identity,
    normalise,
    to_tensors,
)
from dd_jax.data.npz import from_npz, read_npz
from dd_jax.data.sample import real_rows, rows_per_class, rows_uniform
from dd_jax.data.sources import ENVIRONMENT, SOURCES, from_path, is_path, load, options_of
from dd_jax.data.split import split_from_arrays, split_of, stratified_rows, training_part
from dd_jax.data.tfds import from_tfds

__all__ = [
    "ENVIRONMENT",
    "NORMALISERS",
    "Normaliser",
    "SOURCES",
    "as_index",
    "check_classes",
    "denormalise",
    "fingerprint",
    "from_arrays",
    "from_folder",
    "from_npz",
    "from_path",
    "from_tensors",
    "from_tfds",
    "gather",
    "grey",
    "identity",
    "is_path",
    "load",
    "load_embedded",
    "normalise",
    "normalisers",
    "options_of",
    "read_cifar10",
    "read_cifar100",
    "read_idx",
    "read_idx_pair",
    "read_npz",
    "real_rows",
    "require_on_device",
    "rows_of_classes",
    "rows_per_class",
    "rows_uniform",
    "split_from_arrays",
    "split_of",
    "standardise",
    "stratified_rows",
    "to_tensors",
    "training_part",
    "zca",
]
