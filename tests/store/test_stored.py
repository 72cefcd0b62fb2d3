"""Sets stored as what they are decoded from: small files, whole sets, no trust."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import store, synthetic
from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.store.record import Stored, array_bytes
from dd_jax.synthetic import poster_layout
from dd_jax.types import DataSpec, SyntheticSet
from tests.store.tiny_sets import parts, write_parts

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
    recipe = {"method": kind, "ipc": 0.4, "stored_bytes": synthetic.stored_bytes(params),
              "shown_images": len(shown.images)}
    fields = dict(synthetic=shown, normaliser=normaliser, label_kind=KINDS[kind], spec=SPEC,
                  recipe=recipe, stored=Stored(kind, ARGUMENTS[kind], params))
    return store.DistilledSet(**{**fields, **changes})


def assert_shows(found, expected):
    for a, b in zip(found.synthetic, expected.synthetic):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(ARGUMENTS))
def test_the_file_holds_what_was_learned_and_gives_the_set_back(tmp_path, kind):
    whole = made(kind)
    path = store.save(tmp_path / "a.safetensors", whole)
    again = store.load(path)
    assert_shows(again, whole)
    assert again.stored.kind == kind and again.ipc == 0.4
    assert again.stored_bytes == whole.stored_bytes == array_bytes(whole.stored.params.values())
    assert again.stored_bytes < 4 * CLASSES * np.prod(IMAGE)  # below one image of each class
    tensors, card = parts(whole, tmp_path / "b.safetensors")
    assert card["format_version"] == 2 and card["bytes"] == whole.stored_bytes
    held = sum(a.nbytes for name, a in tensors.items() if name.startswith("stored/"))
    assert held == whole.stored_bytes and "images" not in tensors
    # All the rest of the file is its description and the normaliser.
    assert held < path.stat().st_size < held + 3000
    plain = store.save(tmp_path / "c.safetensors", dataclasses.replace(whole, stored=None))
    assert plain.stat().st_size > path.stat().st_size + array_bytes(whole.synthetic) - held - 1000
    assert store.save(tmp_path / "d.safetensors", again).read_bytes() == path.read_bytes()


def test_golden_version_2_loads():
    """To write it anew (only with a new format version, under a new name):
    store.save(GOLDEN, made("poster"))."""
    assert_shows(store.load(GOLDEN), made("poster"))


def test_exports_and_words_are_those_of_the_images():
    whole = made("poster")
    assert store.as_numpy(whole)["images"].shape == (15, *IMAGE)
    assert f"stored {whole.stored_bytes}" in store.summary(whole)


def test_a_set_that_was_changed_after_decoding_is_refused(tmp_path):
    whole = made("poster")
    shown = whole.synthetic
    for changed, name in (
        (shown._replace(images=shown.images + np.float32(0.01)), "images"),
        (shown._replace(labels=shown.labels[::-1]), "labels"),
        (shown._replace(learning_rate=None), "learning_rate"),
    ):
        with pytest.raises(SetFileError, match=f"decodes to other {name}.*stored=None"):
            store.save(tmp_path / "a", dataclasses.replace(whole, synthetic=changed))
    few = SyntheticSet(shown.images[:4], shown.labels[:4], shown.learning_rate)
    with pytest.raises(SetFileError, match="decodes to other images"):
        store.save(tmp_path / "a", dataclasses.replace(whole, synthetic=few))
    again = store.load(store.save(tmp_path / "a", dataclasses.replace(
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
        (altered("poster", shape=(12, 11)), r"make .*'poster': \(12, 11, 1\)"),
        (altered("poster", shape=LEFT_OUT), "shape"),
        (altered("poster", surprise=1), "surprise"),
        (altered("poster", patches=(5, 2)), "decodes to other images"),
        (altered("poster", image_shape=np.zeros(3)), "stored.arguments"),
        (Stored("poster", ARGUMENTS["poster"], {**params, "odd": params["poster"]}), "odd"),
        (Stored("poster", ARGUMENTS["poster"], {"poster": params["poster"]}), "label_map"),
        (Stored("poster", ARGUMENTS["poster"],
                {**params, "poster": params["poster"].astype(np.float64)}), "float64"),
    ):
        odd = dataclasses.replace(whole, stored=stored)
        if match is None:  # learned labels do not depend on the order that they started from
            store.save(tmp_path / "a", odd)
            continue
        with pytest.raises(SetFileError, match=match) as caught:
            store.save(tmp_path / "b", odd)
        assert caught.value.fix


@pytest.mark.parametrize("kind, change, match", [
    ("poster", {"patches": [10**9, 10**9]}, "a whole number up to"),
    ("poster", {"shape": [10**12, 10]}, "a whole number up to"),
    ("poster", {"patches": ["5", 3]}, "cannot be decoded"),
    ("poster", {"patches": [5.0, 3]}, "a whole number up to"),
    ("poster", {"patches": [-5, 3]}, "a whole number up to"),
    ("poster", {"patches": [5, 3, 1]}, "cannot be decoded"),
    ("poster", {"image_shape": [8, 7, 1]}, "poster of images"),
    ("poster", {"labels": ["learned"]}, "cannot be decoded"),
    ("poster", {"class_grid": [1, 2]}, "and 2 classes"),
    # Before anything of that size is made, such as an order of so many classes.
    ("poster", {"class_grid": [100, 100], "order": None}, "and 10000 classes"),
    ("poster", {"patches": [[1], 100]}, "side of the patches"),  # whose product is a list
    ("poster", {"shape": [17, 10], "patches": [2, 3]}, "leave pixels"),
    ("poster", {"labels": "fixed"}, "has the stored parameters.*label_map.*its arguments make"),
    ("poster", {"label_ipc": 3}, "its arguments make.*'label_map': \\(3, 4, 4\\)"),
    ("addressed", {"rows": 11}, "its arguments make"),
    ("addressed", {"rows": "10"}, "cannot be decoded"),
    ("addressed", {"downsample": 4}, "its arguments make"),
    ("addressed", {"per_class": True}, "its arguments make"),
    ("addressed", {"bases": 30}, "its arguments make"),
], ids=str)
def test_files_whose_arguments_lie(tmp_path, kind, change, match):
    tensors, card = parts(made(kind), tmp_path / "a")
    card["stored"] = {"kind": kind, "arguments": {**card["stored"]["arguments"], **change}}
    with pytest.raises(SetFileError, match=match) as caught:
        store.load(write_parts(tmp_path / "b", tensors, card))
    assert caught.value.fix and str(tmp_path) in caught.value.message


def test_other_files_that_lie(tmp_path):
    tensors, card = parts(made("poster"), tmp_path / "a")

    def refused(match, tensors=tensors, cap=2**20, **changes):
        path = write_parts(tmp_path / "b", tensors, {**card, **changes})
        with pytest.raises(SetFileError, match=match):
            store.load(path, max_bytes=cap)

    for stored in (3, {}, {"kind": "poster"}, {"kind": [], "arguments": {}}):
        refused("no kind and arguments", stored=stored)
    refused("'pixels', which is unknown", stored={"kind": "pixels", "arguments": {}})
    refused("'bytes' is 1, the arrays take", bytes=1)
    refused("begin with 'stored/'", tensors={**tensors, "images": tensors["stored/poster"]})
    refused("not finite", tensors={**tensors,
                                   "stored/poster": tensors["stored/poster"] + np.float32("inf")})
    refused("its arguments make", tensors={**tensors,
                                           "stored/poster": tensors["stored/poster"][0]})
    surplus = {**tensors, "stored/images": np.zeros((1, *IMAGE), np.float32)}
    refused("stored parameters .*images.*its arguments make", tensors=surplus,
            bytes=card["bytes"] + 256)
    refused("poster of images",
            spec={**card["spec"], "shape": [8, 7, 1]})
    refused("row 0 of labels", label_kind="one_hot")
    plain = {name: a for name, a in tensors.items() if not name.startswith("stored/")}
    refused("begin with 'stored/'", tensors=plain)
    without = {name: value for name, value in card.items() if name != "stored"}
    path = write_parts(tmp_path / "c", tensors, without)
    with pytest.raises(SetFileError, match="expected images, labels"):
        store.load(path)


def test_a_small_file_of_many_images_is_refused_before_they_are_made(tmp_path):
    path = store.save(tmp_path / "a", made("addressed"))
    images = 4 * 40 * (64 + 4)
    assert path.stat().st_size < images - 1
    with pytest.raises(SetFileError, match=f"shows 40 images of {images} bytes"):
        store.load(path, max_bytes=images - 1)
    assert store.load(path, max_bytes=images).synthetic.images.shape == (40, *IMAGE)


def test_a_small_file_that_needs_much_memory_to_be_decoded_is_refused(tmp_path):
    """Bases that are enlarged 64 times, and a large map of labels of which every patch sees a part:
    what is shown of either is small."""

    def refused(kind, needed, cap, arguments, **arrays):
        tensors, card = parts(made(kind), tmp_path / "a")
        tensors.update({"stored/" + name: array for name, array in arrays.items()})
        held = sum(a.nbytes for name, a in tensors.items() if name.startswith("stored/"))
        card.update(stored={"kind": kind, "arguments": arguments}, bytes=held)
        path = write_parts(tmp_path / "b", tensors, card)
        assert path.stat().st_size < cap < needed
        with pytest.raises(SetFileError, match=f"takes {needed} bytes to decode.*cap of {cap}"):
            store.load(path, max_bytes=cap)
        return store.load(path, max_bytes=needed).synthetic.images.nbytes

    shown = refused("addressed", 4 * (500 * 64 + 2 * 8 * 8 // 8), 30_000,
                    dict(bases=500, rows=1, downsample=8),
                    bases=np.ones((500, 1, 1, 1), np.float32),
                    addresses=np.ones((4, 1, 500), np.float32))
    assert shown < 30_000
    cells, window = 70 * 57, (8 * 70 // 12) * (8 * 57 // 10)
    fades = 8 * (2 * 12 + 2 * 10)
    shown = refused("poster", fades + 4 * 4 * (cells + 15 * window), 400_000,
                    {**ARGUMENTS["poster"], "label_ipc": 1000},
                    label_map=np.ones((70, 57, 4), np.float32))
    assert shown < 30_000


@pytest.mark.parametrize("error", [
    MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"), RecursionError()],
    ids=lambda error: type(error).__name__)
def test_a_decoder_that_runs_out_of_memory_is_a_bad_file(tmp_path, monkeypatch, error):
    path = store.save(tmp_path / "a", made("poster"))

    @functools.wraps(synthetic.poster)
    def failing(**arguments):
        raise error

    kinds = store.stored.STORED_KINDS
    monkeypatch.setitem(kinds, "poster", kinds["poster"]._replace(make=failing))
    with pytest.raises(SetFileError, match=f"cannot be decoded.*{type(error).__name__}"):
        store.load(path)


def test_the_bytes_of_a_stored_form_are_counted_not_believed(tmp_path):
    whole = made("poster")
    lying = dataclasses.replace(whole, recipe={**whole.recipe, "stored_bytes": 7})
    again = store.load(store.save(tmp_path / "a", lying))
    assert again.recipe["stored_bytes"] == 7
    assert again.stored_bytes == lying.stored_bytes == array_bytes(whole.stored.params.values())


def test_more_classes_than_numbers_of_the_poster(tmp_path):
    """One image for a hundred classes: its order has larger numbers than any side or array."""
    spec = DataSpec("toy", IMAGE, 100, tuple(map(str, range(100))))
    arguments = dict(shape=IMAGE[:2], image_shape=IMAGE, patches=(1, 1), class_grid=(10, 10),
                     order=np.arange(100)[::-1].reshape(10, 10).tolist())
    head = synthetic.poster(**arguments)
    params = head.init(jax.random.key(0), SyntheticSet(jnp.zeros((100, *IMAGE)), jnp.eye(100)))
    shown = jax.tree.map(np.asarray, head.decode(params, jax.random.key(0)))
    whole = made("poster", synthetic=shown, spec=spec, recipe={"method": "poster"},
                 stored=Stored("poster", arguments, jax.tree.map(np.asarray, params)))
    assert_shows(store.load(store.save(tmp_path / "a", whole)), whole)


def test_patches_that_leave_pixels_of_the_poster_out_are_refused():
    official = dict(shape=(60, 153), image_shape=(32, 32, 3), class_grid=(2, 5))
    for patches in ((6, 16), (2, 5)):
        synthetic.poster(patches=patches, **official)
    for patches, sides in (((1, 16), "1 images of 32 leave pixels of a side of 60"),
                           ((6, 4), "4 images of 32 leave pixels of a side of 153")):
        with pytest.raises(ConfigError, match=f"{sides}.*patches=\\(2, 5\\)"):
            synthetic.poster(patches=patches, **official)
    for size, side in itertools.product(range(4, 31), (4, 3, 1)):
        least, _ = poster_layout.covering_counts((size, size), (side, side, 1))
        assert synthetic.patch_counts((size, size), (side, side, 1), stride=9.0)[0] >= least
        for count in range(1, size - side + 2):
            seen = np.zeros(size, bool)
            for corner in poster_layout.corners(size, side, count):
                seen[corner : corner + side] = True
            assert seen.all() == (count >= least)
