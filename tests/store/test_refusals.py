"""What the reader of distilled sets refuses, and that it says what to do."""

from __future__ import annotations

import dataclasses
import gzip
import io as stdio
import os
import pickle
import random

import numpy as np
import pytest
import safetensors.numpy

from dd_jax import store
from dd_jax.errors import SetFileError
from dd_jax.store import container
from tests.store.tiny_sets import parts, raw_safetensors, tiny, write_parts


def refused(path, match, **arguments):
    with pytest.raises(SetFileError, match=match) as caught:
        store.load(path, **arguments)
    assert caught.value.fix, "a refusal must say what to do"
    assert str(path) in caught.value.message
    return caught.value


class Payload:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_named_and_not_run(tmp_path, protocol):
    marker, path = tmp_path / "marker", tmp_path / "set.pt"
    path.write_bytes(pickle.dumps(Payload(marker), protocol=protocol))
    refused(path, "never unpickles")
    assert not marker.exists()
    pickle.loads(path.read_bytes()).close()
    assert marker.exists(), "the payload of this test does nothing, so the test proves nothing"


def test_an_npz_with_a_pickle_inside_is_named_and_not_run(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "set.npz"
    np.savez(path, images=np.array([Payload(marker)], dtype=object))
    refused(path, "zip archive")
    assert not marker.exists()


def npy_bytes():
    file = stdio.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "blob, match",
    [
        (b"", "not a safetensors file"),
        (b"\x00" * 7, "not a safetensors file"),
        (b"hello, this is text", "not a safetensors file"),
        (npy_bytes(), "npy"),
        (gzip.compress(b"x"), "gzip"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 9, "HDF5"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 9, "PNG"),
        (b"\xff" * 7 + b"\x7f{}", "header of .* the cap"),
        ((10**6).to_bytes(8, "little") + b"{}", "truncated"),
        (raw_safetensors(b"{nonsense"), "not valid safetensors"),
        (raw_safetensors(b'{"a":' * 50_000), "not valid safetensors"),
        (raw_safetensors(b'{"a":' + b"9" * 6000 + b"}"), "not valid safetensors"),
        (raw_safetensors(b'{"a":1,"a":1}'), "not valid safetensors"),
        (raw_safetensors(b'{"a":NaN}'), "not valid safetensors"),
        (raw_safetensors(b"{\xff}"), "not valid safetensors"),
        (raw_safetensors({}), "without a dd_jax card"),
        (raw_safetensors({"__metadata__": [1]}), "not valid safetensors"),
        (raw_safetensors({"__metadata__": {"dd_jax": "[]"}}), "expected an object"),
        (raw_safetensors({"__metadata__": {"dd_jax": "{}"}}), "'format'"),
    ],
    ids=range(19),
)
def test_files_that_are_not_sets(tmp_path, blob, match):
    path = tmp_path / "file"
    path.write_bytes(blob)
    refused(path, match)


def table(**entry):
    card = container.canonical({"format": container.FORMAT, "format_version": 1})
    full = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}
    return raw_safetensors({"__metadata__": {"dd_jax": card}, "images": full}, b"\x00" * 4)


@pytest.mark.parametrize(
    "blob, match",
    [
        (table(shape=[10**6, 10**6]), "not valid safetensors"),
        (table(shape=[10**30]), "not valid safetensors"),
        (table(shape=[-1]), "not valid safetensors"),
        (table(shape=[True]), "not valid safetensors"),
        (table(shape="1"), "not valid safetensors"),
        (table(shape=[0]), "not valid safetensors"),
        (table(shape=[0], data_offsets=[0, 0]), "truncated or too long"),
        (table(shape=[2**40, 2**40], data_offsets=[0, 2**82]), "not valid safetensors"),
        (table(shape=[1] * 40), "40 axes"),
        (table(dtype="F16", shape=[2]), "'F16', expected float32, int32, uint8"),
        (table(dtype="BF16", shape=[2]), "'BF16'"),
        (table(dtype="F64", shape=[]), "not valid safetensors"),
        (table(dtype="F65"), "not valid safetensors"),
        (table(data_offsets=[0, 400]), "not valid safetensors"),
        (table(data_offsets=[4, 0]), "not valid safetensors"),
        (table(data_offsets="x"), "not valid safetensors"),
    ],
    ids=range(16),
)
def test_lies_in_the_tensor_table(tmp_path, blob, match):
    path = tmp_path / "file"
    path.write_bytes(blob)
    refused(path, match)


def test_too_many_tensors(tmp_path):
    tensors, card = parts(tiny(), tmp_path / "a")
    tensors |= {f"t{i}": np.zeros(1, np.float32) for i in range(100)}
    refused(write_parts(tmp_path / "b", tensors, card), "the cap is 64")


def test_foreign_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.numpy.save_file({"images": np.zeros((2, 2))}, path)
    assert "DistilledSet" in refused(path, r"\['images'\] without a dd_jax card").fix


def test_no_file_folder_pipe_and_cap(tmp_path):
    refused(tmp_path / "none", "does not exist")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    path = store.save(tmp_path / "a", tiny())
    refused(path, "cap of 100", max_bytes=100)


def test_a_set_whose_header_length_looks_like_a_pickle_still_loads(tmp_path):
    """A header of 0x0480 bytes starts the file with 80 04, as a pickle of protocol 4."""
    for extra in range(800):
        path = tmp_path / "a"
        store.save(path, tiny(citation="c" * extra))
        if path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            assert store.load(path).citation == "c" * extra
            return
    pytest.fail("no header of such a length was made")


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(format="other"), "'format' is 'other'|expected 'dd_jax.set'"),
        (dict(format_version=4), "version 4.*upgrade"),
        (dict(format_version=0), "format_version"),
        (dict(format_version=-1), "format_version"),
        (dict(format_version="1"), "format_version"),
        (dict(format_version=True), "format_version"),
        (dict(label_kind="onehot"), "did you mean 'one_hot'"),
        (dict(label_kind=3), "label_kind"),
        (dict(label_kind="one_hot"), "row 0 of labels"),
        (dict(label_kind="probabilities"), "row 0 of labels"),
        (dict(label_scale=0.0), "label_scale"),
        (dict(label_scale=-1), "label_scale"),
        (dict(label_scale=10**400), "401 digits"),
        (dict(label_scale=True), "label_scale"),
        (dict(recipe=[]), "'recipe'"),
        (dict(evaluation=None), "'evaluation'"),
        (dict(versions="x"), "'versions'"),
        (dict(citation=1), "'citation'"),
        (dict(data_fingerprint=None), "'data_fingerprint'"),
        (dict(bytes=1), "'bytes' is 1, the arrays take"),
        (dict(spec=3), "'spec'"),
        (dict(normaliser={}), "normaliser"),
        (dict(normaliser={"kind": "zzz", "per_image": "false"}), "zzz"),
        (dict(normaliser={"kind": [], "per_image": "false"}), "normaliser"),
    ],
    ids=str,
)
def test_a_card_with_a_false_field(tmp_path, change, match):
    """Hashes are right here: a liar can compute them too."""
    tensors, card = parts(tiny(), tmp_path / "a")
    blob = container.pack(tensors, {**card, **change})
    if "format" in change:
        blob = blob.replace(b'\\"format\\":\\"dd_jax.set', b'\\"format\\":\\"other.set!')
        match = "'format'"
    (tmp_path / "b").write_bytes(blob)
    refused(tmp_path / "b", match)


@pytest.mark.parametrize("field", ["label_kind", "spec", "recipe", "bytes", "format_version"])
def test_a_card_that_lacks_a_field(tmp_path, field):
    tensors, card = parts(tiny(), tmp_path / "a")
    del card[field]
    refused(write_parts(tmp_path / "b", tensors, card), field)


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(shape=[3, 2, 2]), "spec's shape"),
        (dict(shape=[2, 3]), "spec.shape"),
        (dict(shape=[2, 3, 0]), "spec.shape"),
        (dict(shape=[2, 3, "2"]), "spec.shape"),
        (dict(num_classes=3, class_names=["a", "b", "c"]), "num_classes"),
        (dict(num_classes=3), "spec.class_names"),
        (dict(num_classes=True), "spec.num_classes"),
        (dict(class_names=["a", 1]), "spec.class_names"),
        (dict(name=None), "spec.name"),
    ],
    ids=str,
)
def test_a_spec_that_does_not_fit(tmp_path, change, match):
    tensors, card = parts(tiny(), tmp_path / "a")
    card["spec"] = {**card["spec"], **change}
    refused(write_parts(tmp_path / "b", tensors, card), match)


def nan_at(array, *index):
    array = np.array(array)
    array[index] = np.nan
    return array


@pytest.mark.parametrize(
    "name, change, match",
    [
        ("images", lambda a: a[:3], "labels have shape"),
        ("images", lambda a: a[:0], "at least 1"),
        ("images", lambda a: a[0], "images have shape"),
        ("images", lambda a: a.reshape(4, 3, 2, 2), "images have shape"),
        ("images", lambda a: nan_at(a, 1, 0, 2, 1), r"1 values.*first at \(1, 0, 2, 1\)"),
        ("images", lambda a: a / 0.0, "not finite"),
        ("labels", lambda a: a[:, :1], "labels have shape"),
        ("labels", lambda a: a[:2], "labels have shape"),
        ("labels", lambda a: nan_at(a, 0, 0), "labels has 1 values"),
        ("learning_rate", lambda a: -a, "none negative"),
        ("learning_rate", lambda a: a * np.nan, "not finite"),
        ("learning_rate", lambda a: np.zeros((2, 2)), "one rate or a list"),
        ("learning_rate", lambda a: np.zeros(0), "one rate or a list"),
        ("log_temperature", lambda a: np.zeros(1), "expected a scalar"),
        ("weights", lambda a: np.ones(3), "one for each image"),
        ("weights", lambda a: np.zeros(4), "not all 0"),
        ("weights", lambda a: -np.ones(4), "none negative"),
        ("weights", lambda a: np.ones((4, 1)), "one for each image"),
        ("weights", lambda a: np.full(4, np.nan), "weights has 4 values that are not finite"),
        ("normaliser/mean", lambda a: np.zeros(3), "normaliser"),
        ("normaliser/std", lambda a: a * 0, "positive|above 0"),
        ("normaliser/std", lambda a: a * np.inf, "finite"),
        ("images", None, "expected images, labels"),
        ("labels", None, "expected images, labels"),
        ("normaliser/mean", None, "normaliser"),
        ("extra", lambda a: np.zeros(1), "expected images, labels"),
        ("normaliser/extra", lambda a: np.zeros(1), "normaliser"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_tensors_that_are_wrong(tmp_path, name, change, match):
    tensors, card = parts(tiny(), tmp_path / "a")
    old = tensors.pop(name, None)
    if change is not None:
        tensors[name] = np.asarray(change(old), np.float32)
    refused(write_parts(tmp_path / "b", tensors, card), match)


def test_a_normaliser_of_another_resolution(tmp_path):
    tensors, card = parts(tiny("zca"), tmp_path / "a")
    for name in ("pixel_mean", "whiten", "unwhiten"):
        key = f"normaliser/{name}"
        tensors[key] = tensors[key][:10] if name == "pixel_mean" else tensors[key][:10, :10]
    refused(write_parts(tmp_path / "b", tensors, card), r"normaliser.pixel_mean.*\(12,\)")


@pytest.mark.parametrize(
    "change, match",
    [
        (dict(recipe={"a": {"b": object()}}), "recipe.a.b is a object"),
        (dict(recipe={"a": [1, float("nan")]}), r"recipe.a\[1\] is nan"),
        (dict(evaluation={1: 2}), "evaluation has the key 1"),
        (dict(versions={"x": b"1"}), "versions.x is a bytes"),
        (dict(label_kind="soft"), "label_kind"),
        (dict(label_scale=float("nan")), "label_scale"),
    ],
    ids=["object", "nan", "key", "bytes", "kind", "scale"],  # no addresses: workers compare ids
)
def test_save_refuses_what_load_would(tmp_path, change, match):
    with pytest.raises(SetFileError, match=match):
        store.save(tmp_path / "a", tiny(**change))
    assert not os.listdir(tmp_path)


def test_save_refuses_other_dtypes_and_divergence(tmp_path):
    made = tiny()
    for images, match in (
        (made.synthetic.images.astype(np.float64), "float64, expected float32"),
        (made.synthetic.images.astype(np.float16), "float16, expected float32"),
        (nan_at(made.synthetic.images, 0), "diverged"),
    ):
        bad = dataclasses.replace(made, synthetic=made.synthetic._replace(images=images))
        with pytest.raises(SetFileError, match=match):
            store.save(tmp_path / "a", bad)


def test_every_truncation_is_refused(tmp_path):
    whole = store.save(tmp_path / "a", tiny()).read_bytes()
    path = tmp_path / "b"
    for length in [*range(0, 24), *range(24, len(whole), 17), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, None)
    path.write_bytes(whole + b"\x00")
    refused(path, "too long")


def test_every_flipped_bit_is_refused_or_harmless(tmp_path):
    made = tiny()
    whole = store.save(tmp_path / "a", made).read_bytes()
    again, path = tmp_path / "again", tmp_path / "b"
    draw = random.Random(0)
    positions = [*range(9), *draw.sample(range(9, len(whole)), 500), len(whole) - 1]
    refusals = 0
    for at in positions:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            loaded = store.load(path)
        except SetFileError:
            refusals += 1
        else:
            assert store.save(again, loaded).read_bytes() == whole, f"byte {at} changed the set"
    assert refusals >= len(positions) - 5


@pytest.mark.parametrize("which", ["card", "tensors"])
def test_a_changed_part_is_named(tmp_path, which):
    whole = store.save(tmp_path / "a", tiny()).read_bytes()
    changed = whole.replace(b"abc123", b"abc124")
    if which == "tensors":
        changed = whole[:-1] + bytes([whole[-1] ^ 1])
    assert changed != whole
    (tmp_path / "b").write_bytes(changed)
    refused(tmp_path / "b", f"the {which} changed")
