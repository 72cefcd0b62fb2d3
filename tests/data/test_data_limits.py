"""Readers of real data bound what they decode, together as one by one, and start no program."""

from __future__ import annotations

import gzip
import os
import struct

import numpy as np
import pytest

from dd_jax import data
from dd_jax.data import files
from dd_jax.data.cifar import read_records
from dd_jax.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")
ENCAPSULATED = (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n"
                b"%%EOF\n")


@pytest.fixture
def little(monkeypatch):
    """Nothing may decode to more than 3,000 bytes, or twice those of its file."""
    monkeypatch.setattr(files, "FREE_BYTES", 3000)
    monkeypatch.setattr(files, "FREE_PACKED", 3000)
    monkeypatch.setattr(files, "MAX_RATIO", 2)


def pictures(root, count=3, size=(6, 6), mode="L"):
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new(mode, size, 7).save(root / name / f"{i}.png")
    return root


def test_postscript_in_a_png_starts_no_program(tmp_path, monkeypatch):
    ran, folder = tmp_path / "ran", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\necho \"$@\" >> {ran}\nexit 0\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    root = pictures(tmp_path / "set")
    (root / "a" / "evil.png").write_bytes(ENCAPSULATED)
    with pytest.raises(DataError, match="evil.png"):
        data.load(root)
    assert not ran.exists()


def test_pictures_are_bounded_together(tmp_path, little):
    few = pictures(tmp_path / "few", size=(20, 20))
    assert len(data.from_folder(few, device=False).train.labels) == 4
    many = pictures(tmp_path / "many", 10, size=(20, 20))
    with pytest.raises(DataError, match="many: decodes to more than"):
        data.from_folder(many, device=False)
    # What the user asks for is not what the file says.
    assert data.from_folder(many, size=8, device=False).train.images.shape[1] == 8


def test_one_picture_is_bounded_by_its_file(tmp_path, little):
    with pytest.raises(DataError, match="100x100 pixels in a file of"):
        data.from_folder(pictures(tmp_path / "set", size=(100, 100)), size=4)


def test_archives_are_bounded_by_their_bytes(tmp_path, little):
    image = np.zeros((10, 20, 20), np.uint8)
    raw = struct.pack(">BBBB3I", 0, 0, 8, 3, *image.shape) + image.tobytes()
    (tmp_path / "plain").write_bytes(raw)
    assert data.read_idx(tmp_path / "plain").shape == image.shape
    (tmp_path / "packed").write_bytes(gzip.compress(raw))
    with pytest.raises(DataError, match="expected between 1 and 3000"):
        data.read_idx(tmp_path / "packed")
    np.savez(tmp_path / "plain.npz", images=image, labels=np.arange(10) % 2)
    assert data.read_npz(tmp_path / "plain.npz")["images"].shape == image.shape
    np.savez_compressed(tmp_path / "packed.npz", a=image[:3], b=image[:3], c=image[:3])
    with pytest.raises(DataError, match="declares .* bytes in a file of"):
        data.read_npz(tmp_path / "packed.npz")


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="nobody tells where holes are")
@pytest.mark.parametrize("read", [data.read_idx, data.read_npz,
                                  lambda path: read_records(path, (10,))])
def test_a_file_of_holes_is_not_read(tmp_path, read):
    path = tmp_path / "x"
    path.write_bytes(b"")
    os.truncate(path, 3073 * 32_768)
    with pytest.raises(DataError, match="of which only 0 were ever written"):
        read(path)
    with pytest.raises(OSError, match="more than can be meant"):
        files.read_regular(path)


def test_written_bytes_are_counted(tmp_path, little):
    path = tmp_path / "x"
    path.write_bytes(bytes(2**16))
    with open(path, "rb") as stream:
        assert files.held_bytes(stream, 2**16) == 2**16
        assert stream.read(3) == bytes(3)  # and it is read from its start


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (data.read_idx, data.read_npz, lambda path: read_records(path, (10,))):
        with pytest.raises(DataError, match="expected a file"):
            read(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        files.open_regular(pipe)
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a link"):
        files.open_regular(tmp_path / "link", follow=False)
    os.mkfifo(tmp_path / "batches.meta.txt")
    raw = b"".join(bytes([i]) + bytes(3072) for i in range(10))
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (tmp_path / name).write_bytes(raw)
    assert data.read_cifar10(tmp_path).train.spec.class_names[3] == "3"


def test_a_name_out_of_a_file_is_no_path(tmp_path):
    folder = pictures(tmp_path / "private")
    for name in (str(folder), "../private", "tfds:mnist", ""):
        with pytest.raises(ConfigError, match="no well-known set"):
            data.sources.load_named(name)
    assert data.sources.load_named("fashion_mnist_10k").train.spec.num_classes == 10


@pytest.mark.parametrize("change", [{"std": 1e-45}, {"std": 0.0}, {"std": 1e30}, {"mean": 1e30}])
def test_a_normaliser_has_room_in_single_precision(toy, change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is"):
        data.standardise(toy, **change)


def test_a_set_without_images_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((0, 2, 2), np.uint8), labels=np.zeros(0, int))
    with pytest.raises(DataError, match="there (is|are) no image"):
        data.load(tmp_path / "a.npz")
