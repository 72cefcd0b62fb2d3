"""Pictures: shapes and pixels of mosaics, captions that survive any name, charts."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dd_jax import report, store
from dd_jax.data.normalise import identity
from dd_jax.errors import ConfigError, MissingPackageError, SetFileError
from dd_jax.report.figures import caption
from dd_jax.types import DataSpec, SyntheticSet

HOSTILE = ("a/b", "line\nbreak", "🎉", "W" * 10_000, "$\\frac$", "")


def make(ipc, classes=10, shape=(28, 28, 1), names=None, counts=None):
    counts = [ipc] * classes if counts is None else counts
    labels = np.eye(classes, dtype=np.float32)[np.repeat(np.arange(classes), counts)]
    levels = np.linspace(0, 1, len(labels), dtype=np.float32)[:, None, None, None]
    images = np.ones((len(labels), *shape), np.float32) * levels
    spec = DataSpec("toy", shape, classes, tuple(names or (f"class {k}" for k in range(classes))))
    return store.DistilledSet(SyntheticSet(images, labels), identity(shape), "one_hot", spec)


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_grid_places_enlarged_pixels_between_white_gaps():
    images = np.zeros((3, 2, 2, 1), np.float32)
    images[0, 0, 1] = 1.0
    images[1] = 0.5
    picture = report.grid(images, columns=2, scale=3, gap=1)
    assert picture.shape == (13, 13, 3) and picture.dtype == np.uint8
    expected = np.full((13, 13), 255)
    expected[:6, :6] = 0
    expected[:3, 3:6] = 255
    expected[:6, 7:13] = 128
    expected[7:13, :6] = 0
    np.testing.assert_array_equal(picture, expected[..., None].repeat(3, -1))


@pytest.mark.parametrize("channels, shown", [(1, [0, 0, 0]), (2, [63, 63, 63]),
                                             (3, [0, 127, 255]), (5, [0, 127, 255])])
def test_grid_shows_any_number_of_channels(channels, shown):
    image = np.array([0, 127, 255, 9, 9], np.uint8)[:channels].reshape(1, 1, 1, channels)
    assert report.grid(image, columns=1, scale=1)[0, 0].tolist() == shown


def test_grid_survives_values_out_of_range():
    values = np.array([-3, 2, np.nan, np.inf, -np.inf], np.float32).reshape(5, 1, 1, 1)
    row = report.grid(values, columns=5, scale=1, gap=0)[0, :, 0]
    assert row.tolist() == [0, 255, 0, 255, 0]


def test_grid_takes_fewer_images_than_columns_and_enlarges_small_ones():
    assert report.grid(np.zeros((2, 28, 28, 1)), columns=9).shape == (112, 226, 3)
    assert report.grid(np.zeros((1, 200, 100, 3)), columns=1).shape == (200, 100, 3)


@pytest.mark.parametrize("arguments", [dict(columns=0), dict(columns=1.5), dict(columns=True),
                                       dict(columns=1, scale=0), dict(columns=1, gap=-1)], ids=str)
def test_grid_refuses_sizes(arguments):
    with pytest.raises(ConfigError, match="expected an integer"):
        report.grid(np.zeros((1, 2, 2, 1)), **arguments)


@pytest.mark.parametrize("images", [np.zeros((2, 2, 1)), np.zeros((0, 2, 2, 1)),
                                    np.zeros((1, 2, 2, 1), np.int32)], ids=["rank", "empty", "int"])
def test_grid_refuses_images(images):
    with pytest.raises(ConfigError, match="expected \\[M, H, W, C\\]"):
        report.grid(images, columns=1)


def test_ten_classes_become_two_captioned_rows_of_five(tmp_path):
    made = make(1)
    picture = read(report.save_grid(tmp_path / "a.png", made))
    assert picture.shape == (12 + 2 * 140, 12 + 5 * 124, 3)
    levels = np.rint(np.linspace(0, 1, 10) * 255)
    for i in range(10):
        top, left = 12 + (i // 5) * 140, 12 + (i % 5) * 124
        tile = picture[top : top + 112, left : left + 112]
        # The rasteriser may blend the outermost pixel with the background.
        assert np.abs(tile[1:-1, 1:-1].astype(int) - levels[i]).max() <= 1, f"image {i}"
        text = picture[top + 114 : top + 138, left : left + 112]
        assert text.min() < 128, f"no caption under image {i}"


def test_more_images_become_a_row_for_each_class(tmp_path):
    counts = [3, 1, 0, 2]
    made = make(None, 4, (8, 8, 3), counts=counts)
    picture = read(report.save_grid(tmp_path / "a.png", made))
    assert picture.shape[1] == 120 + 3 * 66 + 12
    levels = np.rint(np.linspace(0, 1, 6) * 255).astype(int)
    row = 0
    for k, count in enumerate(counts):
        centre = 10 + k * 66 + 32
        for i in range(3):
            pixel = int(picture[centre, 120 + i * 66 + 32, 0])
            assert abs(pixel - (levels[row + i] if i < count else 255)) <= 1, (k, i)
        row += count


@pytest.mark.parametrize("ipc, shape", [(1, (226, 568)), (2, (1138, 226))])
def test_without_captions_matplotlib_is_not_needed(tmp_path, monkeypatch, ipc, shape):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    made = make(ipc)
    assert read(report.save_grid(tmp_path / "a.png", made, titles=False)).shape == (*shape, 3)
    with pytest.raises(MissingPackageError, match="titles=False"):
        report.save_grid(tmp_path / "b.png", made)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ipc", [1, 2])
def test_any_class_name_can_be_drawn(tmp_path, ipc):
    made = make(ipc, len(HOSTILE), names=HOSTILE)
    assert read(report.save_grid(tmp_path / "a.png", made)).min() < 255


@pytest.mark.parametrize("ipc, classes", [(1, 300), (30, 60)])
def test_huge_sets_are_cut_to_a_picture(tmp_path, ipc, classes):
    made = make(ipc, classes, (2, 2, 1))
    height, width, _ = read(report.save_grid(tmp_path / "a.png", made)).shape
    assert height < 6000 and width < 3000
    texts = [text.get_text() for text in report.figure(made).axes[0].texts]
    assert any("not shown" in t or t.startswith("shown:") for t in texts)


def test_images_alone_with_and_without_titles(tmp_path):
    images = np.zeros((3, 8, 8, 1), np.float32)
    plain = read(report.save_grid(tmp_path / "a.png", images, columns=3, scale=2))
    np.testing.assert_array_equal(plain, report.grid(images, columns=3, scale=2))
    titled = report.save_grid(tmp_path / "b.png", images, titles=["a", "b", "c"])
    assert read(titled).shape == (152, 12 + 3 * 124, 3)
    with pytest.raises(ConfigError, match="2 titles for 3 images"):
        report.save_grid(tmp_path / "c.png", images, titles=["a", "b"])
    with pytest.raises(ConfigError, match="True or False"):
        report.save_grid(tmp_path / "c.png", make(1), titles=["a"])
    with pytest.raises(SetFileError):
        report.save_grid(tmp_path, images)


def test_figure_names_every_class():
    made = report.figure(make(1))
    assert [t.get_text() for t in made.axes[0].texts] == [f"class {k}" for k in range(10)]


def test_figure_belongs_to_no_window():
    code = (
        "import sys, numpy, dd_jax.report\n"
        "dd_jax.report.figure(numpy.zeros((1, 2, 2, 1)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_captions_are_one_short_line():
    assert caption("T-shirt/top", width=120) == "T-shirt/top"
    assert caption(" a \n\t b ", width=120) == "a b"
    assert caption("🎉", width=120) == "?"
    long = caption("W" * 10_000, width=120)
    assert long.endswith("\N{HORIZONTAL ELLIPSIS}") and 3 < len(long) < 15


def test_a_set_without_classes_is_shown_as_its_images(tmp_path):
    plain = make(2, classes=3)
    named = dataclasses.replace(plain, label_kind="representations")
    path = report.save_grid(tmp_path / "a.png", named)
    alone = report.save_grid(tmp_path / "b.png", store.as_numpy(plain)["images_unit"])
    np.testing.assert_array_equal(read(path), read(alone))
    assert report.figure(named).axes


def test_curve_draws_each_series(tmp_path):
    series = {"a $\\frac$": ([0, 1, 2], [1, np.nan, 3]), "b": ([0, 1], [2, 2])}
    path = report.curve(tmp_path / "c.png", series, xlabel="time (s)", ylabel="accuracy $\\frac$")
    colours = {tuple(c) for c in read(path).reshape(-1, 3).tolist()}
    assert (0x1B, 0x4F, 0x72) in colours and (0xC0, 0x39, 0x2B) in colours


def test_a_logarithmic_axis_gives_equal_ratios_equal_room(tmp_path):
    series = {"a": ([1, 10, 100], [1, 2, 3])}
    paths = [report.curve(tmp_path / f"{log}.png", series, xlabel="bytes", ylabel="y", log=log)
             for log in (False, True)]
    middles = []  # where the line is at half of its height
    for path in paths:
        there = (read(path) == (0x1B, 0x4F, 0x72)).all(axis=2)
        rows, columns = np.nonzero(there)
        middle = columns[np.abs(rows - (rows.min() + rows.max()) / 2) < 2].mean()
        middles.append((middle - columns.min()) / np.ptp(columns))
    assert middles[0] < 0.2 and abs(middles[1] - 0.5) < 0.05
    with pytest.raises(ConfigError, match="has the x 0"):
        report.curve(tmp_path / "c.png", {"a": ([0, 1], [1, 2])}, xlabel="", ylabel="", log=True)


@pytest.mark.parametrize("series", [{}, {"a": ([1, 2], [1])}, {"a": ([[1]], [[1]])}], ids=str)
def test_curve_refuses(tmp_path, series):
    with pytest.raises(ConfigError):
        report.curve(tmp_path / "c.png", series, xlabel="x", ylabel="y")


def test_importing_report_loads_no_drawing_library():
    code = (
        "import sys, dd_jax.report\n"
        "assert not {'matplotlib', 'PIL'} & set(sys.modules), 'a drawing library was loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
