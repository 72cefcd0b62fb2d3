"""Exports read back by other tools, with the numbers that other tools need."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from dd_jax import store
from dd_jax.data.normalise import identity, normalise
from dd_jax.errors import ConfigError, SetFileError
from dd_jax.store.export import folder_name
from dd_jax.types import DataSpec, SyntheticSet
from tests.store.tiny_sets import normaliser, tiny

export_module = sys.modules["dd_jax.store.export"]  # store.export is the function

HOSTILE = ("../../etc/passwd", "a\nb\x00c", "🎉", "x" * 10_000, "con", "", "..", "T-shirt/top")


def in_unit_range(kind):
    """A set whose images came from known pixels in [0, 1]."""
    unit = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 2, 3, 2)
    made = tiny(kind)
    images = np.asarray(normalise(made.normaliser, unit))
    return unit, dataclasses.replace(made, synthetic=made.synthetic._replace(images=images))


@pytest.mark.parametrize("kind", ["none", "standardise", "zca"])
def test_images_unit_undoes_the_normaliser(kind):
    unit, made = in_unit_range(kind)
    np.testing.assert_allclose(store.as_numpy(made)["images_unit"], unit, atol=1e-5)


def test_images_unit_is_clipped():
    arrays = store.as_numpy(tiny("none"))
    assert arrays["images"].min() < 0 and arrays["images"].max() > 1
    assert arrays["images_unit"].min() == 0 and arrays["images_unit"].max() == 1


def test_images_of_a_per_image_normaliser_fill_the_range():
    unit, made = in_unit_range("zca_per_image")
    shown = store.as_numpy(made)["images_unit"]
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown.min((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(shown.max((1, 2, 3)), 1, atol=1e-6)


def test_npz_reads_without_pickle_and_serves_a_foreign_trainer(tmp_path):
    unit, made = in_unit_range("zca")
    (path,) = store.export(made, "npz", tmp_path / "set.npz")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for name, array in store.as_numpy(made).items():
        np.testing.assert_array_equal(arrays[name], array)
    assert arrays["hard_labels"].tolist() == [0, 0, 1, 1]
    assert arrays["class_names"].tolist() == ["cat/dog", "été"]
    card = json.loads(str(arrays["card"]))
    assert card["label_kind"] == "centred" and card["normaliser"]["kind"] == "zca"
    z = (unit - arrays["normaliser_mean"]) / arrays["normaliser_std"]
    z = (z.reshape(4, -1) - arrays["normaliser_pixel_mean"]) @ arrays["normaliser_whiten"]
    np.testing.assert_allclose(z.reshape(unit.shape), arrays["images"], atol=1e-5)


def test_arrays_are_copies():
    made = tiny()
    store.as_numpy(made)["images"][:] = 7
    assert made.synthetic.images.max() < 7


@pytest.mark.parametrize("rate", [None, 0.01])
def test_safetensors_is_plain(tmp_path, rate):
    made = tiny("zca", rate=rate)
    (path,) = store.export(made, "safetensors", tmp_path)
    tensors, arrays = safetensors.numpy.load_file(path), store.as_numpy(made)
    assert path.name == "distilled.safetensors"
    assert set(tensors) == set(arrays) - {"card", "class_names"}
    assert ("learning_rate" in tensors) == (rate is not None)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, arrays[name])
    with pytest.raises(SetFileError, match="without a dd_jax card"):
        store.load(path)


def test_torch_layout_keeps_whitening_right(tmp_path):
    unit, made = in_unit_range("zca")
    (path,) = store.export(made, "torch", tmp_path / "t.safetensors")
    t = safetensors.numpy.load_file(path)
    assert t["images"].shape == (4, 2, 2, 3) and t["hard_labels"].dtype == np.int64
    nchw = unit.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(t["images_unit"], nchw, atol=1e-5)
    z = (nchw - t["normaliser_mean"][:, None, None]) / t["normaliser_std"][:, None, None]
    z = (z.reshape(4, -1) - t["normaliser_pixel_mean"]) @ t["normaliser_whiten"]
    np.testing.assert_allclose(z.reshape(nchw.shape), t["images"], atol=1e-5)
    back = t["images"].reshape(4, -1) @ t["normaliser_unwhiten"] + t["normaliser_pixel_mean"]
    expected = (nchw - t["normaliser_mean"][:, None, None]) / t["normaliser_std"][:, None, None]
    np.testing.assert_allclose(back.reshape(nchw.shape), expected, atol=1e-5)
    snippet = store.torch_snippet(path)
    compile(snippet, "snippet", "exec")
    assert "pickle" not in snippet and str(path) in snippet


def coloured(channels, names=("a", "b"), count=2):
    classes = len(names)
    unit = np.linspace(0, 1, count * 4 * 5 * channels, dtype=np.float32)
    unit = unit.reshape(count, 4, 5, channels)
    labels = np.eye(classes, dtype=np.float32)[np.arange(count) * classes // count]
    from dd_jax.data.normalise import identity

    spec = DataSpec("toy", (4, 5, channels), classes, tuple(names))
    synthetic = SyntheticSet(unit, labels)
    return unit, store.DistilledSet(synthetic, identity(spec.shape), "one_hot", spec)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_pixels(tmp_path, channels):
    unit, made = coloured(channels, count=4)
    paths = store.export(made, "png", tmp_path / "out")
    names = [str(p.relative_to(tmp_path / "out")) for p in paths]
    assert names == ["000_a/000.png", "000_a/001.png", "001_b/000.png", "001_b/001.png"]
    for path, image in zip(paths, unit):
        with Image.open(path) as picture:
            pixels = np.asarray(picture).reshape(image.shape)
        np.testing.assert_array_equal(pixels, np.rint(image * 255).astype(np.uint8))


def test_png_refuses_two_channels(tmp_path):
    with pytest.raises(SetFileError, match="2 channels"):
        store.export(tiny("none"), "png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hostile_class_names_stay_inside_the_folder(tmp_path):
    _, made = coloured(1, HOSTILE, count=len(HOSTILE))
    folder = tmp_path / "deep" / "out"
    paths = store.export(made, "png", folder)
    assert len(set(paths)) == len(HOSTILE)
    assert all(path.resolve().parent.parent == folder.resolve() for path in paths)
    assert os.listdir(tmp_path) == ["deep"] and os.listdir(tmp_path / "deep") == ["out"]
    npz = store.export(made, "npz", tmp_path / "set.npz")[0]
    with np.load(npz, allow_pickle=False) as file:
        assert file["class_names"].tolist() == list(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_folder_names_are_short_ascii(name):
    made = folder_name(7, name)
    assert made.startswith("007_") and len(made) <= 44
    assert all(c.isascii() and (c.isalnum() or c in "_-") for c in made)


def test_folder_names_keep_what_they_can():
    assert folder_name(0, "Café au lait") == "000_Cafe_au_lait"
    assert folder_name(1234, "🎉") == "1234_class"


def test_a_full_folder_is_refused_and_overwriting_leaves_no_stale_image(tmp_path):
    folder = tmp_path / "out"
    store.export(coloured(1, count=4)[1], "png", folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "000_a" / "photo.png").write_text("mine")
    made = coloured(1, ("a", "c"), count=2)[1]
    with pytest.raises(SetFileError, match="not empty.*overwrite=True"):
        store.export(made, "png", folder)
    store.export(made, "png", folder, overwrite=True)
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["000_a/000.png", "000_a/photo.png", "001_c/000.png", "notes.txt"]


@pytest.mark.parametrize("to", ["npz", "safetensors", "torch"])
def test_a_file_is_not_replaced_unasked(tmp_path, to):
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    with pytest.raises(SetFileError, match="exists"):
        store.export(tiny(), to, path)
    assert path.read_bytes() == b"mine"
    assert store.export(tiny(), to, path, overwrite=True) == [path]
    assert path.read_bytes() != b"mine" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("to", list(store.EXPORTS))
def test_places_that_cannot_be_written(tmp_path, to):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetFileError):
        store.export(coloured(1)[1], to, tmp_path / "file" / "below" / "out")


@pytest.mark.parametrize("to", ["npz", "safetensors", "torch"])
def test_representations_name_no_class(tmp_path, to):
    made = tiny(label_kind="representations", label_scale=1.0)
    (path,) = store.export(made, to, tmp_path / "out")
    assert "hard_labels" not in store.as_numpy(made) and path.exists()
    assert "unlabelled" in store.summary(made)
    one = coloured(1, count=2)[1]
    with pytest.raises(SetFileError, match="labels are representations"):
        store.export(dataclasses.replace(one, label_kind="representations"), "png", tmp_path / "b")


def test_unknown_format():
    with pytest.raises(ConfigError, match="did you mean 'npz'"):
        store.export(tiny(), "npzz", "nowhere")


def test_the_normaliser_of_the_helpers_is_not_symmetric():
    whiten = normaliser("zca").whiten
    assert not np.allclose(whiten, whiten.T), "else a transposed export would pass"


@pytest.mark.parametrize("classes,first", [(2, "000_"), (1000, "000_"), (1002, "0000_")])
def test_names_of_classes_sort_as_labels_do(classes, first):
    names = [folder_name(k, f"n{k}", classes=classes) for k in range(classes)]
    assert names == sorted(names) and names[0].startswith(first)


def test_an_export_is_in_the_order_of_labels(tmp_path, monkeypatch):
    """More classes, and more images of one, than three digits can count."""
    written = []
    monkeypatch.setattr(export_module, "_save_png", lambda picture, path: written.append(path))
    count = 1002
    for labels in (np.arange(count), np.zeros(count, int)):
        spec = DataSpec("toy", (1, 1, 1), count, tuple(f"n{k}" for k in range(count)))
        synthetic = SyntheticSet(np.zeros((count, 1, 1, 1), np.float32), labels.astype(np.int32))
        made = store.DistilledSet(synthetic, identity((1, 1, 1)), "classes", spec)
        written.clear()
        store.export(made, "png", tmp_path / "out")
        assert len(written) == count and written == sorted(written)
