"""Files of sets bound what they show and hold numbers that work; no link is followed."""

from __future__ import annotations

import dataclasses
import os

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import store
from dd_jax.data import files
from dd_jax.data.normalise import Normaliser, normalise
from dd_jax.errors import CheckpointError, DataError, SetFileError
from dd_jax.store import container
from dd_jax.store.atomic import write_atomically
from dd_jax.store.envelope import read_json_file
from tests.store.test_any_shape import free
from tests.store.tiny_sets import parts, tiny, write_parts

SIDE, ROWS = 1024, 100


def test_a_small_file_cannot_show_a_gigabyte(tmp_path):
    """1.5 kB of addresses that decode to 1.2 GB."""
    tensors, card = parts(tiny(), tmp_path / "a")
    held = {"bases": (1, 1, 1, 3), "addresses": (1, ROWS, 1), "labels": (1, 1)}
    tensors = {"normaliser/mean": np.zeros(3, np.float32), "normaliser/std": np.ones(3, np.float32),
               **{f"stored/{name}": np.ones(shape, np.float32) for name, shape in held.items()}}
    card |= {
        "format_version": 2, "label_kind": "one_hot", "label_scale": 1.0, "bytes": 4 * (4 + ROWS),
        "spec": {"name": "toy", "shape": [SIDE, SIDE, 3], "num_classes": 1, "class_names": ["a"]},
        "normaliser": {"kind": "none", "per_image": "false"},
        "stored": {"kind": "addressed",
                   "arguments": {"bases": 1, "rows": ROWS, "downsample": SIDE}}}
    path = write_parts(tmp_path / "b", tensors, card)
    assert path.stat().st_size < 3000
    with pytest.raises(SetFileError, match=f"shows {ROWS} images of .* more than the cap"):
        store.load(path)


def test_pixels_and_class_numbers_are_bounded_as_a_network_sees_them(tmp_path, monkeypatch):
    path = store.save(tmp_path / "a", free())
    assert store.load(path).synthetic.images.dtype == np.uint8
    monkeypatch.setattr(files, "FREE_BYTES", 100)
    monkeypatch.setattr(files, "MAX_RATIO", 1)
    with pytest.raises(SetFileError, match="bytes as a network sees it, more than the cap"):
        store.load(path)
    assert store.load(path, max_bytes=10**6).synthetic.images.dtype == np.uint8


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="nobody tells where holes are")
def test_a_file_of_holes_is_no_set(tmp_path):
    path = store.save(tmp_path / "a", tiny())
    os.truncate(path, 2 * files.FREE_BYTES)
    with pytest.raises(SetFileError, match="nearly all holes"):
        store.load(path)


def with_std(value):
    return tiny(normaliser=Normaliser(np.float32([0.5, 0.5]), np.float32([0.5, value])))


@pytest.mark.parametrize("std", [1e-45, 1e-12, 1e12, 3e38])
def test_a_deviation_that_divides_to_infinity_is_refused(tmp_path, std):
    with pytest.raises(SetFileError, match="normaliser.std has the value"):
        store.save(tmp_path / "a", with_std(std))
    tensors, card = parts(with_std(0.5), tmp_path / "a")
    tensors["normaliser/std"] = np.float32([0.5, std])
    with pytest.raises(SetFileError, match="std has the value|expected .C. and positive"):
        store.load(write_parts(tmp_path / "b", tensors, card))


def test_deviations_that_are_let_in_work():
    for std in (1e-9, 1e9):
        seen = normalise(with_std(std).normaliser, jnp.ones((1, 2, 3, 2)))
        assert np.isfinite(np.square(seen)).all()


@pytest.mark.parametrize("change", [
    lambda u: np.full_like(u, 3e38), lambda u: u.T + 0.1, lambda u: u * 1.01, np.zeros_like])
def test_whitening_comes_with_its_inverse(tmp_path, change):
    tensors, card = parts(tiny("zca"), tmp_path / "a")
    tensors["normaliser/unwhiten"] = change(tensors["normaliser/unwhiten"])
    with pytest.raises(SetFileError, match="unwhiten is not the inverse"):
        store.load(write_parts(tmp_path / "b", tensors, card))


@pytest.mark.parametrize("deviations", [np.ones(600), np.logspace(-3, 3, 600)])
def test_fitted_whitening_is_let_in_whatever_its_condition(deviations):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(600, 600)))[0]
    whiten, unwhiten = ((basis / d @ basis.T).astype(np.float32)
                        for d in (deviations, 1 / deviations))
    assert store.checks._inverse(whiten, unwhiten)
    assert not store.checks._inverse(whiten, np.eye(600, dtype=np.float32) * np.float32(2))


def test_a_message_about_a_long_card_is_short(tmp_path):
    tensors, card = parts(tiny(), tmp_path / "a")
    card["normaliser"] = {"kind": "\x1b[31m" + "x" * 10**5, "per_image": "false"}
    with pytest.raises(SetFileError) as caught:
        store.load(write_parts(tmp_path / "b", tensors, card))
    assert len(str(caught.value)) < 2500 and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: p.symlink_to("/dev/zero"),
                                  lambda p: p.symlink_to(p)], ids=range(4))
def test_json_is_read_from_regular_files_alone(tmp_path, make):
    path = tmp_path / "a.json"
    make(path)
    with pytest.raises(DataError, match="it cannot be read"):
        read_json_file(path, "it", fix="", error=DataError)
    with pytest.raises(FileNotFoundError):
        read_json_file(tmp_path / "none", "it", fix="")
    (tmp_path / "b.json").write_text('{"a": 1}')
    (tmp_path / "link").symlink_to(tmp_path / "b.json")
    assert read_json_file(tmp_path / "link", "it", fix="", follow=True) == {"a": 1}
    with pytest.raises(CheckpointError, match="it is a link"):
        read_json_file(tmp_path / "link", "it", fix="", error=CheckpointError)


def test_files_are_put_in_the_place_of_files_alone(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SetFileError, match="not a regular file"):
        write_atomically(tmp_path / "pipe", lambda file: file.write(b"1"))
    with pytest.raises(SetFileError, match="cannot write"):
        write_atomically(tmp_path / ("x" * 300), lambda file: file.write(b"1"))
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "link", lambda file: file.write(b"1"))
    assert (tmp_path / "precious").read_text() == "years of work"
    assert (tmp_path / "link").read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 3


def test_an_export_does_not_write_through_links(tmp_path):
    made = tiny(spec=dataclasses.replace(tiny().spec, shape=(2, 3, 1)))
    made = dataclasses.replace(made, normaliser=Normaliser(np.zeros(1, np.float32),
                                                           np.ones(1, np.float32)),
                               synthetic=made.synthetic._replace(
                                   images=made.synthetic.images[..., :1]))
    for folder in ("out", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / "000_cat_dog").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetFileError, match="is a link"):
        store.export(made, "png", tmp_path / "out", overwrite=True)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_golden_normalisers_pass(tmp_path):
    for kind in ("none", "standardise", "zca", "zca_per_image"):
        assert container.unpack(store.save(tmp_path / kind, tiny(kind)))
