"""Files of formats 1 and 2, written by a release before format 3, still give what was put in."""

from __future__ import annotations

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from dd_jax import report, store, synthetic
from dd_jax.data.normalise import Normaliser
from dd_jax.store.record import Stored
from dd_jax.types import DataSpec, SyntheticSet

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
IMAGE = (4, 4, 1)
SPEC = DataSpec("toy", IMAGE, 3, ("cat", "dog", "été"))


def around(shown, label_kind, **more):
    """A set of these arrays with everything else that a file says."""
    return store.DistilledSet(
        synthetic=shown, normaliser=Normaliser(np.float32([0.25]), np.float32([0.5])),
        label_kind=label_kind, spec=SPEC, recipe={"method": "old", "rates": [0.1, 1]},
        versions={"jax": "0.10.2"}, data_fingerprint="abc", citation="@article{x}",
        evaluation={"steps": 10}, **more)


def of_images():
    """Version 1: images, probabilities, a rate for each step and a temperature."""
    images = np.linspace(-0.5, 1.5, 96, dtype=np.float32).reshape(6, *IMAGE)
    labels = np.tile(np.float32([[0.5, 0.25, 0.25], [0, 1, 0], [0.25, 0, 0.75]]), (2, 1))
    rates, temperature = np.float32([0.5, 0.25]), np.float32(0.125)
    return around(SyntheticSet(images, labels, rates, temperature), "probabilities")


def of_bases():
    """Version 2: two images of each class, added up from two small bases."""
    head = synthetic.addressed(bases=2, rows=2, downsample=2)
    params = {"bases": np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2, 1),
              "addresses": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 2, 2),
              "labels": np.eye(3, dtype=np.float32)}
    shown = jax.tree.map(np.asarray, head.decode(params, jax.random.key(0)))
    stored = Stored("addressed", dict(bases=2, rows=2, downsample=2), params)
    return around(shown, "one_hot", stored=stored)


FILES = {"before_v1.safetensors": of_images, "before_v2.safetensors": of_bases}


@pytest.fixture(params=sorted(FILES))
def both(request):
    """(what the file gives, what was put in, the file).

    The files came from `store.save(GOLDEN / name, made())` of the release that wrote version 2.
    """
    path = GOLDEN / request.param
    return store.load(path), FILES[request.param](), path


def test_content(both, tmp_path):
    loaded, made, path = both
    for ours, theirs in zip(loaded.synthetic, made.synthetic):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    for name in ("label_kind", "spec", "recipe", "versions", "data_fingerprint", "citation",
                 "evaluation", "label_scale", "label_store", "ipc", "stored_bytes", "cost_bytes"):
        assert getattr(loaded, name) == getattr(made, name), name
    assert loaded.ipc == 2 and loaded.cost_bytes.total == loaded.stored_bytes
    # Written anew they are byte for byte what they were.
    for again in (loaded, made):
        assert store.save(tmp_path / "a", again).read_bytes() == path.read_bytes()


def test_words_and_pictures(both, tmp_path):
    loaded, made, _ = both
    assert store.summary(loaded) == store.summary(made)
    for part in ("old", "6x4x4x1 float32", "per class     2", "été", f"stored {made.stored_bytes}"):
        assert part in store.summary(loaded)
    with Image.open(report.save_grid(tmp_path / "a.png", loaded, titles=False)) as picture:
        assert picture.size == (226, 340)


def test_exports(both, tmp_path):
    loaded, made, _ = both
    for to in ("npz", "safetensors", "torch"):
        (path,) = store.export(loaded, to, tmp_path / f"{to}.file")
        if to == "npz":
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        else:
            found = safetensors.numpy.load_file(path)
        shown = np.asarray(made.synthetic.images)
        shown = shown.transpose(0, 3, 1, 2) if to == "torch" else shown
        np.testing.assert_allclose(found["images"], shown, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(found["labels"], made.synthetic.labels)
        assert found["hard_labels"].tolist() == made.hard_labels.tolist()
        assert not {"pixels", "weights"} & set(found)
    assert len(store.export(loaded, "png", tmp_path / "png")) == 6
