"""A set of uint8 images, class numbers, classes of 3, 1 and 7 images, weights and a label store."""

from __future__ import annotations

import dataclasses
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from dd_jax import report, store
from dd_jax.data.normalise import Normaliser, normalise
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.store import container
from dd_jax.types import DataSpec, SyntheticSet
from tests.store.tiny_sets import parts, write_parts

IMAGE = (4, 4, 3)
CLASSES = np.array([2, 0, 2, 1, 2, 2, 0, 2, 2, 0, 2], np.int32)  # 3, 1 and 7, in no order
COUNT, K, EPOCHS = 11, 3, 2


def free(**changes):
    """A set that neither format 1 nor format 2 can hold."""
    pixels = (np.arange(COUNT * 48) * 7 % 256).astype(np.uint8).reshape(COUNT, *IMAGE)
    weights = np.linspace(0, 2, COUNT, dtype=np.float32)
    spec = DataSpec("toy", IMAGE, K, ("cat", "dog", "owl"))
    fields = dict(
        synthetic=SyntheticSet(pixels, CLASSES, weights=weights), label_kind="classes", spec=spec,
        normaliser=Normaliser(np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.25, 1])),
        recipe={"method": "chosen"})
    return store.DistilledSet(**{**fields, **changes})


def with_arrays(**arrays):
    made = free()
    return dataclasses.replace(made, synthetic=made.synthetic._replace(**arrays))


def soft(seed=0, epochs=EPOCHS):
    """[E, M, K] probabilities."""
    drawn = np.random.default_rng(seed).random((epochs, COUNT, K)).astype(np.float32) + 0.1
    return drawn / drawn.sum(-1, keepdims=True)


def saved(folder, *, seed=0, **changes):
    """A set in a file with a label store beside it: (the path, the set)."""
    path, made = folder / "a.safetensors", free(**changes)
    made = dataclasses.replace(made, label_store=store.write_label_store(path, soft(seed), made))
    return store.save(path, made), made


def test_it_is_saved_and_loaded(tmp_path):
    path, made = saved(tmp_path)
    again = store.load(path)
    for ours, theirs in zip(again.synthetic, made.synthetic):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == theirs.dtype and isinstance(ours, jax.Array)
            np.testing.assert_array_equal(ours, theirs)
    assert again.label_store == made.label_store and again.label_kind == "classes"
    assert again.label_store.path == tmp_path / "a.labels.safetensors"
    assert again.ipc == pytest.approx(COUNT / K) and again.hard_labels.tolist() == CLASSES.tolist()
    whole = path.read_bytes()
    assert store.save(path, again).read_bytes() == whole
    assert container.unpack(path)[1]["format_version"] == 3


@pytest.mark.parametrize("kind, labels", [
    ("one_hot", np.eye(K, dtype=np.float32)[CLASSES]),
    ("centred", np.eye(K, dtype=np.float32)[CLASSES] - np.float32(1 / K)),
    ("logits", np.arange(33, dtype=np.float32).reshape(COUNT, K)),
    ("classes", CLASSES),
])
@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_what_a_network_trains_on(tmp_path, kind, labels, pixels, weighted):
    made = free(label_kind=kind)
    whole = SyntheticSet(made.synthetic.images, labels, np.float32(0.1),
                         weights=made.synthetic.weights if weighted else None)
    seen = normalise(made.normaliser, whole.images)
    whole = whole if pixels else whole._replace(images=np.asarray(seen))
    made = dataclasses.replace(made, synthetic=whole)
    path = store.save(tmp_path / "a", made)
    shown = store.load(path).trainable()
    assert shown.images.dtype == shown.labels.dtype == jnp.float32
    np.testing.assert_allclose(shown.images, seen, rtol=1e-6)
    expected = np.eye(K)[CLASSES] if kind == "classes" else labels
    np.testing.assert_array_equal(shown.labels, expected)
    assert (shown.weights is not None) == weighted and float(shown.learning_rate) == np.float32(0.1)
    plain = not pixels and not weighted and kind != "classes"
    assert container.unpack(path)[1]["format_version"] == (1 if plain else 3)


def test_its_cost_is_what_its_files_hold(tmp_path):
    path, made = saved(tmp_path)
    cost = made.cost_bytes
    assert cost == store.Cost(images=COUNT * 48, labels=4 * COUNT, parameters=4 * COUNT,
                              label_store=2 * EPOCHS * COUNT * K)
    tensors = container.unpack(path)[0]
    own = sum(a.nbytes for name, a in tensors.items() if not name.startswith("normaliser/"))
    beside = safetensors.numpy.load_file(tmp_path / "a.labels.safetensors")["targets"]
    assert own + beside.nbytes == cost.total == made.stored_bytes == sum(cost)
    noted = dataclasses.replace(made, recipe={"stored_bytes": 7, "shown_images": COUNT})
    assert noted.stored_bytes == 7 + cost.label_store and noted.cost_bytes == cost


def test_it_is_shown(tmp_path):
    path, made = saved(tmp_path)
    text = store.summary(store.load(path))
    for part in ("11x4x4x3 uint8", "11 int32, classes", "1 to 7", "weights       11, min 0, mean 1",
                 "a.labels.safetensors: 2x11x3 float16, probabilities, 132 bytes",
                 "images 528, labels 44, label store 132, parameters 44", "stored 748"):
        assert part in text, part
    with Image.open(report.save_grid(tmp_path / "a.png", made)) as captioned:
        assert captioned.size[0] == 120 + 7 * (64 + 2) + 12
    bare = report.save_grid(tmp_path / "b.png", made, titles=False, scale=1)
    with Image.open(bare) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 6 - 2, 7 * 6 - 2, 3)
    first = np.flatnonzero(CLASSES == 2)
    for place, row in enumerate(first):
        tile = pixels[12:16, 6 * place:6 * place + 4]
        np.testing.assert_array_equal(tile, made.synthetic.images[row])
    assert (pixels[6:10, 6:] == 255).all()  # of class 1 there is one image


@pytest.mark.parametrize("to", list(store.EXPORTS))
def test_it_is_exported(tmp_path, to):
    path, made = saved(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    paths = store.export(store.load(path), to, out)
    if to == "png":
        names = [str(p.relative_to(out)) for p in paths]
        assert names == [f"00{k}_{name}/{i:03d}.png" for k, name, count in (
            (0, "cat", 3), (1, "dog", 1), (2, "owl", 7)) for i in range(count)]
        with Image.open(out / "001_dog" / "000.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), made.synthetic.images[3])
        return
    assert [p.name for p in paths][1:] == ["distilled.labels.safetensors"]
    assert paths[1].read_bytes() == (tmp_path / "a.labels.safetensors").read_bytes()
    if to == "npz":
        with np.load(paths[0], allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    else:
        found = safetensors.numpy.load_file(paths[0])
    order = (0, 3, 1, 2) if to == "torch" else (0, 1, 2, 3)
    np.testing.assert_array_equal(found["pixels"], made.synthetic.images.transpose(order))
    seen = np.asarray(made.trainable().images)
    np.testing.assert_array_equal(found["images"], seen.transpose(order))
    assert found["images_unit"].max() <= 1 and found["images"].dtype == np.float32
    for name in ("labels", "hard_labels"):
        assert found[name].tolist() == CLASSES.tolist()
        assert found[name].dtype == (np.int64 if to == "torch" else np.int32)
    np.testing.assert_array_equal(found["weights"], made.synthetic.weights)
    with pytest.raises(SetFileError, match="exists"):
        store.export(made, to, out)
    store.export(made, to, out, overwrite=True)


def test_an_export_beside_the_set_keeps_its_label_store(tmp_path):
    path, made = saved(tmp_path)
    store.export(made, "npz", tmp_path / "a.npz", overwrite=True)
    assert store.load(path).label_store == made.label_store


def test_pixels_of_a_per_image_normaliser_are_shown_as_they_are():
    made = free(normaliser=dataclasses.replace(free().normaliser, per_image=True,
                                               kind="zca_per_image"))
    unit = store.as_numpy(made)["images_unit"]
    np.testing.assert_array_equal(np.rint(unit * 255).astype(np.uint8), made.synthetic.images)


WEIGHTS = free().synthetic.weights
BAD = [
    (lambda: with_arrays(labels=CLASSES + 1), "row 0 of labels is 3, expected 0 to 2"),
    (lambda: with_arrays(labels=-CLASSES), "row 0 of labels is -2"),
    (lambda: with_arrays(labels=CLASSES.astype(np.int64)), "int64, expected int32"),
    (lambda: with_arrays(labels=CLASSES[:, None]), r"labels have shape \(11, 1\)"),
    (lambda: with_arrays(labels=CLASSES[:5]), r"labels have shape \(5,\)"),
    (lambda: with_arrays(labels=np.eye(K, dtype=np.float32)[CLASSES]), "float32, expected int32"),
    (lambda: free(label_kind="one_hot"), "int32, expected float32.*label_kind"),
    (lambda: free(label_scale=2.0), "label_scale is 2.0.*1 for labels that are classes"),
    (lambda: with_arrays(images=np.zeros((COUNT, *IMAGE), np.int8)), "int8, expected float32 or"),
    (lambda: with_arrays(images=np.zeros((COUNT, *IMAGE), np.uint16)), "uint16, expected float32"),
    (lambda: with_arrays(weights=WEIGHTS - 1), "from -1 to 1, expected.*none negative"),
    (lambda: with_arrays(weights=0 * WEIGHTS), "not all 0"),
    (lambda: with_arrays(weights=WEIGHTS + np.float32("nan")), "weights has 11 values"),
    (lambda: with_arrays(weights=WEIGHTS[:3]), r"weights have shape \(3,\), |weights have shape"),
    (lambda: with_arrays(weights=WEIGHTS.astype(np.float64)), "float64, expected float32"),
    (lambda: free(label_store="a.labels.safetensors"), "label_store is a str"),
]


@pytest.mark.parametrize("make, match", BAD, ids=range(len(BAD)))
def test_what_cannot_be_is_refused_wherever_it_goes(tmp_path, make, match):
    made = make()
    for use in (store.validate, store.as_numpy, lambda s: store.save(tmp_path / "a", s),
                lambda s: store.export(s, "npz", tmp_path / "a")):
        with pytest.raises(SetFileError, match=match) as caught:
            use(made)
        assert caught.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, change, match", [
    ("labels", lambda a: a + 1, "row 0 of labels is 3"),
    ("labels", lambda a: a.astype(np.float32), "float32, expected int32"),
    ("labels", lambda a: a.astype(np.uint8), "uint8, expected int32"),
    ("weights", lambda a: -a, "none negative"),
    ("weights", lambda a: a.astype(np.int32), "int32, expected float32"),
    ("images", lambda a: a.astype(np.int32), "int32, expected float32 or uint8"),
    ("normaliser/mean", lambda a: a.astype(np.int32), "not finite float"),
])
def test_files_of_such_sets_that_lie(tmp_path, name, change, match):
    tensors, card = parts(free(), tmp_path / "a")
    tensors[name] = change(tensors[name])
    with pytest.raises(SetFileError, match=match):
        store.load(write_parts(tmp_path / "b", tensors, card))


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_format_cannot_hold_such_a_set(tmp_path, version):
    tensors, card = parts(free(), tmp_path / "a")
    with pytest.raises(SetFileError, match=f"format version {version}, but holds what needs 3"):
        store.load(write_parts(tmp_path / "b", tensors, {**card, "format_version": version}))


def test_every_flipped_bit_is_refused_or_harmless(tmp_path):
    path, _ = saved(tmp_path)
    draw, whole = random.Random(0), path.read_bytes()
    for at in draw.sample(range(len(whole)), 200):
        changed = bytearray(whole)
        changed[at] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            loaded = store.load(path)
        except SetFileError:
            continue
        assert store.save(path, loaded).read_bytes() == whole, f"byte {at} changed the set"


def test_png_of_five_channels_is_refused(tmp_path):
    spec = dataclasses.replace(free().spec, shape=(4, 4, 5))
    normaliser = Normaliser(np.zeros(5, np.float32), np.ones(5, np.float32))
    images = np.zeros((COUNT, 4, 4, 5), np.uint8)
    made = free(spec=spec, normaliser=normaliser, synthetic=SyntheticSet(images, CLASSES))
    with pytest.raises(SetFileError, match="5 channels.*npz"):
        store.export(made, "png", tmp_path / "out")
    assert store.export(made, "npz", tmp_path / "out.npz")


# The label store.


@pytest.mark.parametrize("dtype, error", [("float16", 1e-3), ("float32", 0)])
@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_labels_of_each_epoch_are_replayed(tmp_path, dtype, error, kind):
    made, path = free(), tmp_path / "set.safetensors"
    labels = soft() * (1 if kind == "probabilities" else -100)
    beside = store.write_label_store(path, labels, made, kind=kind, dtype=dtype)
    store.save(path, dataclasses.replace(made, label_store=beside))
    beside = store.load(path).label_store
    assert (beside.kind, beside.dtype, beside.shape) == (kind, dtype, labels.shape)
    for epoch in range(5):
        found = store.read_targets(beside, epoch)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, labels[epoch % EPOCHS], rtol=error)
    assert beside.bytes == labels.astype(dtype).nbytes
    with pytest.raises(ConfigError, match="epoch is -1"):
        store.read_targets(beside, -1)
    with pytest.raises(SetFileError, match="nobody knows"):
        store.read_targets(dataclasses.replace(beside, path=None), 0)


def test_a_label_store_follows_its_set_into_another_folder(tmp_path):
    path, _ = saved(tmp_path)
    moved = store.save(tmp_path / "new" / "b.safetensors", store.load(path))
    assert (tmp_path / "new" / "a.labels.safetensors").exists()
    assert store.load(moved).label_store.path.parent == tmp_path / "new"


def test_a_set_that_is_decoded_may_have_one(tmp_path):
    from tests.store.test_stored import made as decoded

    path, whole = tmp_path / "a", decoded("addressed")
    labels = np.full((2, 40, 4), 0.25, np.float32)
    whole = dataclasses.replace(whole, label_store=store.write_label_store(path, labels, whole))
    again = store.load(store.save(path, whole))
    assert again.label_store == whole.label_store and again.stored is not None
    assert again.cost_bytes == store.Cost(0, 0, 640, 4 * sum(
        a.size for a in whole.stored.params.values()))


BAD_TARGETS = [
    (dict(targets=soft()[0]), SetFileError, r"expected floats \[E, 11, 3\]"),
    (dict(targets=soft()[:, :5]), SetFileError, "expected floats"),
    (dict(targets=soft()[:0]), SetFileError, "expected floats"),
    (dict(targets=np.ones((2, COUNT, K), np.int32)), SetFileError, "dtype int32"),
    (dict(targets=soft() + np.float32("nan")), SetFileError, "epoch 0 has values that are not fin"),
    (dict(targets=soft() * 1e6, kind="logits"), SetFileError, "not finite.*float32"),
    (dict(targets=soft() - 1), SetFileError, "no probabilities; .*logits"),
    (dict(targets=soft() * 2), SetFileError, "no probabilities"),
    (dict(kind="one_hot"), ConfigError, "unknown kind"),
    (dict(dtype="bfloat16"), ConfigError, "unknown dtype"),
]


@pytest.mark.parametrize("wrong, error, match", BAD_TARGETS, ids=range(len(BAD_TARGETS)))
def test_labels_that_cannot_be_stored(tmp_path, wrong, error, match):
    with pytest.raises(error, match=match):
        store.write_label_store(tmp_path / "a", **{"targets": soft(), "distilled": free(), **wrong})
    assert not list(tmp_path.iterdir())


def flipped(path, at):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def of_other_labels(folder):
    saved(folder / "other", seed=1)
    (folder / "other" / "a.labels.safetensors").replace(folder / "a.labels.safetensors")


def of_other_images(folder):
    """The hash in the set is right, but its images are not those that were labelled."""
    made = free()
    turned = made.synthetic._replace(images=made.synthetic.images[::-1])
    tensors, card = container.unpack(folder / "a.safetensors")
    write_parts(folder / "a.safetensors", {**tensors, "images": turned.images}, card)


SPOILT = [
    (lambda f: (f / "a.labels.safetensors").unlink(), "a.labels.safetensors is not beside it"),
    (lambda f: flipped(f / "a.labels.safetensors", -1), "row 1 is not what was written"),
    (lambda f: flipped(f / "a.labels.safetensors", -100), "row 0 is not what was written"),
    (lambda f: flipped(f / "a.labels.safetensors", 60), "a.labels.safetensors is"),
    (lambda f: (f / "a.labels.safetensors").write_bytes(b"PK"), "not a whole file of a label st"),
    (lambda f: (f / "a.labels.safetensors").write_bytes(
        (f / "a.labels.safetensors").read_bytes()[:-1]), "truncated"),
    (lambda f: (f / "a.safetensors").replace(f / "a.labels.safetensors")
     and saved(f / "o")[0].replace(f / "a.safetensors"), "expected 'dd_jax.labels'"),
    (of_other_labels, "is that of another set: its SHA-256"),
    (of_other_images, "is that of another set: it labels other images"),
]


@pytest.mark.parametrize("spoil, match", SPOILT, ids=range(len(SPOILT)))
def test_a_label_store_that_is_not_as_it_was(tmp_path, spoil, match):
    path, _ = saved(tmp_path)
    spoil(tmp_path)
    with pytest.raises(SetFileError, match=match) as caught:
        store.load(path)
    assert caught.value.fix and str(path) in caught.value.message


@pytest.mark.parametrize("change, match", [
    (dict(name="../a.labels.safetensors"), "is called"),
    (dict(name="/a.labels.safetensors"), "is called"),
    (dict(name="x\\a.labels.safetensors"), "is called"),
    (dict(name="c:a.labels.safetensors"), "is called"),
    (dict(name=".labels.safetensors"), "is called"),
    (dict(name="a\x00.labels.safetensors"), "is called"),
    (dict(name="a.safetensors"), "is called"),
    (dict(name="x" * 300 + ".labels.safetensors"), "is called"),
    (dict(name=3), "label_store.name"),
    (dict(sha256=None), "label_store.sha256"),
    (dict(sha256="0" * 64), "another set"),
    (dict(dtype="float64"), "label_store.dtype"),
    (dict(dtype=["float16"]), "label_store.dtype"),
    (dict(dtype="float32", bytes=264), "another set: it holds"),
    (dict(shape=[2, 11]), "label_store.shape"),
    (dict(shape=[2, 11, True]), "label_store.shape"),
    (dict(shape=[1, 11, 3], bytes=66), "another set: it holds"),
    (dict(shape=[2, 10, 3], bytes=120), r"labels of shape \(10, 3\), the set has \(11, 3\)"),
    (dict(shape=[2**39, 11, 3], bytes=2**40 * 33), "more than the cap"),
    (dict(kind="logits"), "another set: it holds"),
    (dict(kind="one_hot"), "label_store.kind"),
    (dict(bytes=1), "label_store.bytes"),
], ids=str)
def test_records_of_a_label_store_that_lie(tmp_path, change, match):
    path, _ = saved(tmp_path)
    tensors, card = container.unpack(path)
    card["label_store"] = {**card["label_store"], **change}
    with pytest.raises(SetFileError, match=match):
        store.load(write_parts(path, tensors, card))
    card["label_store"] = list(change)
    with pytest.raises(SetFileError, match="label_store.name"):
        store.load(write_parts(path, tensors, card))


def test_save_looks_for_the_label_store(tmp_path):
    path, made = saved(tmp_path)
    lost = dataclasses.replace(made.label_store, path=None)
    with pytest.raises(SetFileError, match="not beside it"):
        store.save(tmp_path / "new" / "a", dataclasses.replace(made, label_store=lost))
    other = dataclasses.replace(with_arrays(images=made.synthetic.images[::-1]),
                                label_store=made.label_store)
    with pytest.raises(SetFileError, match="labels other images"):
        store.save(path, other)
    few = SyntheticSet(made.synthetic.images[:4], CLASSES[:4])
    with pytest.raises(SetFileError, match=r"the set has \(4, 3\)"):
        store.save(path, dataclasses.replace(made, synthetic=few))
