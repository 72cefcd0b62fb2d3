"""What readers leave out is told; what they take is what is meant; options go where they can."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from dd_jax import data
from dd_jax.errors import ConfigError, DataError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def folder(root, *, count=3, image=None, endings=(".png",), classes="ab"):
    """Class folders with so many images of each ending."""
    image = image or Image.fromarray(GREY)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            for ending in endings:
                format = {".jfif": "JPEG"}.get(ending)
                image.save(root / name / f"{ending[1:]}{i}{ending}", format=format)
    return root


def test_images_that_are_not_read_are_counted_by_kind(tmp_path):
    folder(tmp_path, endings=(".png", ".gif", ".jfif"))
    (tmp_path / "a" / "more").mkdir()
    (tmp_path / "loose.png").write_bytes(b"")
    (tmp_path / "a" / ".hidden.png").write_bytes(b"")
    (tmp_path / "README.txt").write_text("beside the classes, and no image")
    with pytest.warns(UserWarning, match=r"left out 6 x .gif, 6 x .jfif, 1 x .png, 1 x folder;"):
        split = data.load(tmp_path)
    assert len(split.train.labels) + len(split.test.labels) == 6


def test_a_folder_of_which_nothing_can_be_read_is_refused_with_what_is_there(tmp_path):
    with pytest.raises(DataError, match=r"that can be read \(left out: 4 x .gif\)"):
        data.load(folder(tmp_path / "none", endings=(".gif",), count=2))
    folder(tmp_path / "one", classes="a")
    folder(tmp_path / "one", endings=(".jfif",), classes="b")
    with pytest.raises(DataError, match=r"b: no image .*\(left out: 3 x .jfif\); .*PNG or JPEG"):
        data.load(tmp_path / "one")


def test_parts_that_are_not_used_are_told(tmp_path):
    for part in ("train", "test", "val"):
        folder(tmp_path / part)
    with pytest.warns(UserWarning, match="left out 1 x folder 'val';"):
        assert len(data.load(tmp_path).test.labels) == 6
    with pytest.raises(ConfigError, match="test folder of its own, and test_fraction is 0.5"):
        data.load(tmp_path, test_fraction=0.5)


@pytest.mark.parametrize("mode,shape", [("L", 1), ("LA", 1), ("1", 1), ("RGB", 3), ("RGBA", 3),
                                        ("P", 3)])
def test_grey_stays_grey_whatever_its_alpha(tmp_path, mode, shape):
    image = Image.fromarray(GREY).convert(mode)
    split = data.load(folder(tmp_path, image=image))
    assert split.train.spec.shape == (8, 8, shape)


def tiff16(order):
    """Sixteen-bit grey in an order of bytes; Pillow has a mode of its own for each."""
    pixels = (np.arange(64) * 1000).astype(f"{order}u2").tobytes()
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, 8), (279, 4, len(pixels))]
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8 + len(pixels))
    entries = b"".join(struct.pack(f"{order}HHI", tag, kind, 1)
                       + (struct.pack(f"{order}HH", value, 0) if kind == 3
                          else struct.pack(f"{order}I", value)) for tag, kind, value in tags)
    return head + pixels + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"


@pytest.mark.parametrize("order", [">", "<"])
def test_more_than_eight_bits_are_refused_in_any_order(tmp_path, order):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.tif").write_bytes(tiff16(order))
    with pytest.raises(DataError, match="pixels of mode I;16.*save it with 8 bits"):
        data.load(tmp_path)


def test_arrays_of_a_file_that_are_not_read_are_told(tmp_path):
    x, y = np.zeros((6, 8, 8), np.uint8), np.arange(6) % 2
    np.savez(tmp_path / "both.npz", x_train=x, y_train=y, x_test=x, y_test=y, x_val=x, y_val=y)
    with pytest.warns(UserWarning, match="left out the arrays x_val, y_val"):
        split = data.load(tmp_path / "both.npz", class_names=["cat", "dog"])
    assert split.test.spec.class_names == ("cat", "dog")
    with pytest.raises(ConfigError, match="a test part of its own"):
        data.load(tmp_path / "both.npz", test_fraction=0.5)
    np.savez(tmp_path / "none.npz", images=x[:0], labels=y[:0])
    with pytest.raises(DataError, match="no images"):
        data.load(tmp_path / "none.npz")


@pytest.mark.parametrize("options,said", [
    (dict(size=4), "size has no meaning for .*one.npz, an .npz file; .*test_fraction, class_names"),
    (dict(channels=1), "channels has no meaning"),
    (dict(test_fraction="half"), "test_fraction is 'half'"),
    (dict(test_fraction=1), "test_fraction is 1"),
])
def test_options_that_data_leave_no_room_for_are_refused(tmp_path, options, said):
    np.savez(tmp_path / "one.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.arange(6) % 2)
    with pytest.raises(ConfigError, match=said):
        data.load(tmp_path / "one.npz", **options)
    with pytest.raises(ConfigError, match="has no meaning for embedded"):
        data.load("embedded", **options)


@pytest.mark.parametrize("size", [0, -3, (4,), "8", 4.0, True, (4, 4, 4), {4}])
def test_sizes_are_pixels(tmp_path, size):
    with pytest.raises(ConfigError, match="size is"):
        data.from_folder(tmp_path, size=size)


def test_what_is_written_like_a_file_is_one():
    with pytest.raises(DataError, match="nofile.npz: no such file"):
        data.load("nofile.npz")
    with pytest.raises(ConfigError, match="unknown data source 'nofile'"):
        data.load("nofile")
