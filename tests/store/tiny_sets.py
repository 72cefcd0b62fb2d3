"""Tiny distilled sets, built from explicit arrays so that no random generator can change them."""

from __future__ import annotations

import json

import numpy as np

from dd_jax.data.normalise import Normaliser, identity
from dd_jax.store import DistilledSet, container
from dd_jax.types import DataSpec, SyntheticSet

SHAPE = (2, 3, 2)
SPEC = DataSpec("toy", SHAPE, 2, ("cat/dog", "été"))


def normaliser(kind="none"):
    if kind == "none":
        return identity(SHAPE)
    mean, std = np.float32([0.25, 0.5]), np.float32([0.5, 0.25])
    if kind == "standardise":
        return Normaliser(mean=mean, std=std, kind=kind)
    # Not symmetric, so that a transposed or reordered matrix cannot pass for the right one.
    whiten = (np.eye(12) + np.diag(np.linspace(0.1, 0.5, 11), 1)).astype(np.float32)
    unwhiten = np.linalg.inv(whiten.astype(np.float64)).astype(np.float32)
    return Normaliser(
        mean=mean, std=std, pixel_mean=np.linspace(-1, 1, 12, dtype=np.float32), whiten=whiten,
        unwhiten=unwhiten, kind=kind, per_image=kind == "zca_per_image",
    )


def tiny(kind="standardise", *, count=4, rate=0.01, **changes):
    images = np.linspace(-0.5, 1.5, count * 12, dtype=np.float32).reshape(count, *SHAPE)
    labels = np.eye(2, dtype=np.float32)[np.arange(count) * 2 // count] - np.float32(0.5)
    fields = dict(
        synthetic=SyntheticSet(images, labels, None if rate is None else np.float32(rate)),
        normaliser=normaliser(kind),
        label_kind="centred",
        label_scale=2.0,
        spec=SPEC,
        recipe={"method": "frepo", "optimiser": {"rate": 0.001, "betas": [0.9, 0.99]}},
        versions={"jax": "0.10.2"},
        data_fingerprint="abc123",
        citation="@article{x,\n  title={y}\n}",
        evaluation={"steps": 100, "augment": None, "flip": True},
    )
    return DistilledSet(**{**fields, **changes})


def parts(distilled, path):
    """(tensors, card) of a set as its file has them, to be changed and packed again."""
    from dd_jax import store

    return container.unpack(store.save(path, distilled))


def write_parts(path, tensors, card):
    """Writes a file with honest hashes over whatever it says."""
    path.write_bytes(container.pack(tensors, card))
    return path


def raw_safetensors(header, payload=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload
