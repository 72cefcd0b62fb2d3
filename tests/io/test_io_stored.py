"""Sets stored as what they are decoded from: small files, whole sets, no trust."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import io, synthetic
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import SetFileError
from dd_jax.io.record import Stored, cost_bytes
from dd_jax.types import DataSpec, SyntheticSet
from tests.io.tiny_sets import parts, write_parts

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "set_v2.safetensors"
IMAGE, CLASSES = (8, 8, 1), 4
SPEC = DataSpec("toy", IMAGE, CLASSES, tuple("abcd"))
ARGUMENTS = {
    "poster": dict(shape=(12, 10), image_shape=IMAGE, patches=(5, 3), class_grid=(2, 2),
                   order=[[0, 2], [3, 1]], labels="learned"),
    "addressed": dict(bases=3, rows=10, downsample=2),
}
LEFT_OUT = object()
KINDS = {"poster": "probabilities", "addressed": "one_hot"}


def made(kind, **changes):
    """A set of a parameterization whose numbers come from no random generator."""
    head = getattr(synthetic, kind)(**ARGUMENTS[kind])
    start = SyntheticSet(jnp.zeros((CLASSES, *IMAGE)), jnp.eye(CLASSES), jnp.float32(0.01))
    params = jax.tree.map(np.asarray, head.init(jax.random.key(0), start))
    for name in ("poster", "bases", "addresses", "label_map"):
        if name in params:
            size = params[name].size
            params[name] = np.cos(np.arange(size) + 1.0).astype(np.float32).reshape(
                params[name].shape) ** (2 if name == "label_map" else 1)
    shown = jax.tree.map(np.asarray, head.decode(params, jax.random.key(0)))
    normaliser = Normaliser(np.float32([0.25]), np.float32([0.5]), kind="standardise")
    recipe = {"method": kind, "ipc": 0.4, "stored_bytes": head.cost(params),
              "shown_images": len(shown.images)}
    fields = dict(synthetic=shown, normaliser=normaliser, label_kind=KINDS[kind], spec=SPEC,
                  recipe=recipe, stored=Stored(kind, ARGUMENTS[kind], params))
    return io.DistilledSet(**{**fields, **changes})


def assert_shows(found, expected):
    for a, b in zip(found.synthetic, expected.synthetic):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(ARGUMENTS))
def test_the_file_holds_what_was_learned_and_gives_the_set_back(tmp_path, kind):
    whole = made(kind)
    path = io.save(tmp_path / "a.safetensors", whole)
    again = io.load(path)
    assert_shows(again, whole)
    assert again.stored.kind == kind and again.ipc == 0.4
    assert again.stored_bytes == whole.stored_bytes == cost_bytes(whole.stored.params)
    assert again.stored_bytes < 4 * CLASSES * np.prod(IMAGE)  # below one image of each class
    tensors, card = parts(whole, tmp_path / "b.safetensors")
    assert card["format_version"] == 2 and card["bytes"] == whole.stored_bytes
    held = sum(a.nbytes for name, a in tensors.items() if name.startswith("stored/"))
    assert held == whole.stored_bytes and "images" not in tensors
    # All the rest of the file is its description and the normaliser.
    assert held < path.stat().st_size < held + 3000
    plain = io.save(tmp_path / "c.safetensors", dataclasses.replace(whole, stored=None))
    assert plain.stat().st_size > path.stat().st_size + cost_bytes(whole.synthetic) - held - 1000
    assert io.save(tmp_path / "d.safetensors", again).read_bytes() == path.read_bytes()


def test_golden_version_2_loads():
    """To write it anew (only with a new format version, under a new name):
    io.save(GOLDEN, made("poster"))."""
    assert_shows(io.load(GOLDEN), made("poster"))


def test_exports_and_words_are_those_of_the_images():
    whole = made("poster")
    assert io.as_numpy(whole)["images"].shape == (15, *IMAGE)
    assert f"stored {whole.stored_bytes}" in io.summary(whole)


def test_a_set_that_was_changed_after_decoding_is_refused(tmp_path):
    whole = made("poster")
    shown = whole.synthetic
    for changed, name in (
        (shown._replace(images=shown.images + np.float32(0.01)), "images"),
        (shown._replace(labels=shown.labels[::-1]), "labels"),
        (shown._replace(learning_rate=None), "learning_rate"),
    ):
        with pytest.raises(SetFileError, match=f"decodes to other {name}.*stored=None"):
            io.save(tmp_path / "a", dataclasses.replace(whole, synthetic=changed))
    few = SyntheticSet(shown.images[:4], shown.labels[:4], shown.learning_rate)
    with pytest.raises(SetFileError, match="more than the cap"):
        io.save(tmp_path / "a", dataclasses.replace(whole, synthetic=few))
    again = io.load(io.save(tmp_path / "a", dataclasses.replace(
        whole, synthetic=few, stored=None)))
    assert again.ipc == 1 and again.stored is None


def altered(kind, **changes):
    arguments = {**ARGUMENTS[kind], **changes}
    return Stored(kind, {name: v for name, v in arguments.items() if v is not LEFT_OUT},
                  made(kind).stored.params)


def test_save_refuses_forms_that_no_file_could_give_back(tmp_path):
    whole = made("poster")
    params = whole.stored.params
    for stored, match in (
        (Stored("pixels", {}, params), "'pixels', which is unknown"),
        (altered("poster", patches=(3, 5)), "only 3 places"),
        (Stored("poster", ARGUMENTS["poster"], {**params, "poster": 2 * params["poster"]}),
         "decodes to other images"),
        (altered("poster", order=None), None),
        (altered("poster", shape=(12, 11)), "the poster has shape"),
        (altered("poster", shape=LEFT_OUT), "shape"),
        (altered("poster", surprise=1), "surprise"),
        (altered("poster", patches=(6, 3)), "more than the cap"),
        (altered("poster", image_shape=np.zeros(3)), "stored.arguments"),
        (Stored("poster", ARGUMENTS["poster"], {**params, "odd": params["poster"]}), "odd"),
        (Stored("poster", ARGUMENTS["poster"], {"poster": params["poster"]}), "label_map"),
        (Stored("poster", ARGUMENTS["poster"],
                {**params, "poster": params["poster"].astype(np.float64)}), "float64"),
    ):
        odd = dataclasses.replace(whole, stored=stored)
        if match is None:  # learned labels do not depend on the order that they started from
            io.save(tmp_path / "a", odd)
            continue
        with pytest.raises(SetFileError, match=match) as caught:
            io.save(tmp_path / "b", odd)
        assert caught.value.fix


@pytest.mark.parametrize("kind, change, match", [
    ("poster", {"patches": [10**9, 10**9]}, "a whole number up to"),
    ("poster", {"shape": [10**12, 10]}, "a whole number up to"),
    ("poster", {"patches": ["5", 3]}, "cannot be decoded"),
    ("poster", {"patches": [5.0, 3]}, "a whole number up to"),
    ("poster", {"patches": [-5, 3]}, "a whole number up to"),
    ("poster", {"patches": [5, 3, 1]}, "cannot be decoded"),
    ("poster", {"image_shape": [8, 7, 1]}, "expected 15 images"),
    ("poster", {"labels": ["learned"]}, "cannot be decoded"),
    ("poster", {"class_grid": [1, 2]}, "cannot be decoded"),
    ("addressed", {"rows": 11}, "expected 44 images"),
    ("addressed", {"rows": "10"}, "cannot be decoded"),
    ("addressed", {"downsample": 4}, "expected 40 images"),
    ("addressed", {"per_class": True}, "cannot be decoded"),
], ids=str)
def test_files_whose_arguments_lie(tmp_path, kind, change, match):
    tensors, card = parts(made(kind), tmp_path / "a")
    card["stored"] = {"kind": kind, "arguments": {**card["stored"]["arguments"], **change}}
    with pytest.raises(SetFileError, match=match) as caught:
        io.load(write_parts(tmp_path / "b", tensors, card))
    assert caught.value.fix and str(tmp_path) in caught.value.message


def test_other_files_that_lie(tmp_path):
    tensors, card = parts(made("poster"), tmp_path / "a")

    def refused(match, tensors=tensors, cap=2**20, **changes):
        path = write_parts(tmp_path / "b", tensors, {**card, **changes})
        with pytest.raises(SetFileError, match=match):
            io.load(path, max_bytes=cap)

    for stored in (3, {}, {"kind": "poster"}, {"kind": [], "arguments": {}}):
        refused("no kind and arguments", stored=stored)
    refused("'pixels', which is unknown", stored={"kind": "pixels", "arguments": {}})
    refused("'bytes' is 1, the arrays take", bytes=1)
    refused("begin with 'stored/'", tensors={**tensors, "images": tensors["stored/poster"]})
    refused("not finite", tensors={**tensors,
                                   "stored/poster": tensors["stored/poster"] + np.float32("inf")})
    refused("cannot be decoded", tensors={**tensors,
                                          "stored/poster": tensors["stored/poster"][0]})
    refused("other images|cannot be decoded|expected 15 images",
            spec={**card["spec"], "shape": [8, 7, 1]})
    refused("row 0 of labels", label_kind="one_hot")
    plain = {name: a for name, a in tensors.items() if not name.startswith("stored/")}
    refused("begin with 'stored/'", tensors=plain)
    without = {name: value for name, value in card.items() if name != "stored"}
    path = write_parts(tmp_path / "c", tensors, without)
    with pytest.raises(SetFileError, match="expected images, labels"):
        io.load(path)


def test_a_small_file_of_many_images_is_refused_before_they_are_made(tmp_path):
    path = io.save(tmp_path / "a", made("addressed"))
    images = 4 * 40 * (64 + 4)
    assert path.stat().st_size < images - 1
    with pytest.raises(SetFileError, match=f"shows 40 images of {images} bytes"):
        io.load(path, max_bytes=images - 1)
    assert io.load(path, max_bytes=images).synthetic.images.shape == (40, *IMAGE)
