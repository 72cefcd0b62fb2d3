from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import data
from dd_jax.errors import ConfigError, DataError


def pixels(count=6, shape=(4, 4, 1)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


LABELS = np.array([0, 1, 0, 1, 0, 1])


def test_class_rows_are_padded_cyclically():
    real = data.from_arrays(pixels(6), [0, 1, 0, 0, 2, 1])
    assert real.class_counts.tolist() == [3, 2, 1]
    assert real.class_rows.tolist() == [[0, 2, 3], [1, 5, 1], [4, 4, 4]]
    assert real.images.dtype == jnp.uint8 and real.labels.dtype == jnp.int32


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 4), (5, 3, 3), (7, 2, 1)])
def test_odd_shapes_work(shape):
    assert data.from_arrays(pixels(6, shape), LABELS).spec.shape == shape


@pytest.mark.parametrize(
    "shape", [(0, 4, 4, 1), (6, 0, 4, 1), (6, 4, 4, 0), (6,), (6, 4), (6, 1, 1, 1, 1)]
)
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(DataError, match="shape"):
        data.from_arrays(np.zeros(shape, np.uint8), LABELS)


def test_channel_first_is_recognised():
    with pytest.raises(DataError, match="transpose"):
        data.from_arrays(np.zeros((6, 3, 8, 8), np.uint8), LABELS)


def test_missing_channel_axis_is_added():
    assert data.from_arrays(pixels()[..., 0], LABELS).images.shape == (6, 4, 4, 1)


def test_counts_must_agree():
    with pytest.raises(DataError, match="6 images but 5 labels"):
        data.from_arrays(pixels(), LABELS[:5])


@pytest.mark.parametrize(
    "labels, word",
    [
        ([0, 1, 0, 1, 0, -1], "negative values -1"),
        ([1, 2, 1, 2, 1, 2], "labels - 1"),
        ([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], "float64"),
        (np.eye(2, dtype=int)[LABELS], "argmax"),
        (LABELS[:, None], "reshape"),
        (["a", "b"] * 3, "dtype"),
        ([0, 2, 0, 2, 0, 2], "no image of class 1"),
        ([0, 10**9, 0, 1, 1, 1], "1000000000"),
    ],
)
def test_bad_labels(labels, word):
    with pytest.raises(DataError, match=word):
        data.from_arrays(pixels(), labels)


def test_out_of_range_labels_are_listed():
    with pytest.raises(DataError, match=r"7, 9 \(3 rows\), expected 0 to 1"):
        data.from_arrays(pixels(), [0, 1, 7, 9, 9, 0], num_classes=2)
    with pytest.raises(DataError, match="start at 1"):
        data.from_arrays(pixels(), [1, 2, 1, 2, 1, 2], num_classes=2)


def test_missing_class():
    with pytest.raises(DataError, match=r"class 2 \(c\)"):
        data.from_arrays(pixels(), LABELS, class_names=["a", "b", "c"])
    real = data.from_arrays(pixels(), LABELS, num_classes=3, allow_missing=True)
    assert real.class_counts.tolist() == [3, 3, 0]
    with pytest.raises(DataError, match="class 2"):
        data.rows_per_class(real, jax.random.key(0), 1)


def test_single_class_works():
    assert data.from_arrays(pixels(), np.zeros(6, int)).spec.num_classes == 1


def test_names_and_count_must_agree():
    with pytest.raises(ConfigError):
        data.from_arrays(pixels(), LABELS, num_classes=3, class_names=["a", "b"])
    with pytest.raises(ConfigError):
        data.from_arrays(pixels(), LABELS, num_classes=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_pixels(bad):
    images = pixels().astype(np.float32) / 255
    images[3, 1, 2, 0] = images[4, 0, 0, 0] = bad
    with pytest.raises(DataError, match=r"2 NaN or Inf, the first at index \(3, 1, 2, 0\)"):
        data.from_arrays(images, LABELS)


@pytest.mark.parametrize(
    "images, dtype",
    [
        (pixels(), "uint8"),
        (pixels().astype(np.float32) / 255, "uint8"),
        (pixels().astype(np.float64) / 255, "uint8"),
        (pixels().astype(np.float32) * np.float32(1 / 255), "uint8"),
        (pixels().astype(np.float32), "uint8"),
        (pixels().astype(np.int64), "uint8"),
        (np.random.default_rng(1).random((6, 4, 4, 1)), "float32"),
        ((pixels() / 255).astype(np.float16), "float32"),
    ],
)
def test_ranges_that_are_clear(images, dtype):
    real = data.from_arrays(images, LABELS)
    assert real.images.dtype == dtype
    if dtype == "uint8":
        np.testing.assert_array_equal(real.images, pixels())


@pytest.mark.parametrize(
    "images, word",
    [
        (pixels() * 0.5 + 0.25, "divide by 255"),
        (pixels() / 255 - 0.5, "raw pixels"),
        (pixels().astype(np.float32) * 4, "above 255"),
        ((pixels() > 100).astype(np.int32), "masks"),
        (pixels() > 100, "bool"),
        (np.array([object()] * 6), "dtype object"),
    ],
)
def test_ranges_that_are_refused(images, word):
    with pytest.raises(DataError, match=word):
        data.from_arrays(images, LABELS)


@pytest.mark.parametrize("device", [True, False])
def test_inputs_are_copied(device):
    images, labels = pixels(), LABELS.astype(np.int32)
    real = data.from_arrays(images, labels, device=device)
    before = data.fingerprint(real)
    images[:] = 0
    labels[:] = 0
    assert data.fingerprint(real) == before


def test_memmap_stays_on_the_host(tmp_path):
    np.save(tmp_path / "x.npy", pixels())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    real = data.from_arrays(mapped, LABELS, device=False)
    assert isinstance(real.images, np.memmap)
    assert data.fingerprint(real) == data.fingerprint(data.from_arrays(pixels(), LABELS))
    images, labels = data.gather(real, np.array([[5, 0]]))
    np.testing.assert_array_equal(images[0], pixels()[[5, 0]])
    assert labels.tolist() == [[1, 0]]
    with pytest.raises(ConfigError, match="host"):
        jax.jit(lambda rows: data.gather(real, rows))(jnp.array([0]))


def test_gather_inside_jit_and_index():
    real = data.from_arrays(pixels(), LABELS)
    images, labels = jax.jit(data.gather)(real, jnp.array([[1], [2]]))
    np.testing.assert_array_equal(images[:, 0], pixels()[[1, 2]])
    assert labels.tolist() == [[1], [0]]
    index = data.as_index(real)
    assert index.images is None and index.labels is real.labels
    with pytest.raises(ConfigError):
        data.gather(index, jnp.array([0]))


def test_fingerprint_sees_every_part():
    real = data.from_arrays(pixels(), LABELS)
    other = pixels()
    other[-1, -1, -1, -1] ^= 1
    prints = {
        data.fingerprint(real),
        data.fingerprint(data.from_arrays(other, LABELS)),
        data.fingerprint(data.from_arrays(pixels(), 1 - LABELS)),
        data.fingerprint(data.from_arrays(pixels(), LABELS, name="other")),
    }
    assert len(prints) == 4


def test_split_of_names_the_field_that_differs():
    train = data.from_arrays(pixels(), LABELS)
    with pytest.raises(DataError, match="shape"):
        data.split_of(train, data.from_arrays(pixels(6, (5, 4, 1)), LABELS))
    with pytest.raises(DataError, match="num_classes"):
        data.split_of(train, data.from_arrays(pixels(), [0, 1, 2, 0, 1, 2]))


def test_stratified_rows():
    labels = np.array([0] * 10 + [1] * 5 + [2])
    train, test = data.stratified_rows(labels, test_fraction=0.2, seed=3)
    assert sorted([*train, *test]) == list(range(16))
    assert np.bincount(labels[test], minlength=3).tolist() == [2, 1, 0]
    again = data.stratified_rows(labels, test_fraction=0.2, seed=3)
    np.testing.assert_array_equal(test, again[1])
    with pytest.raises(ConfigError):
        data.stratified_rows(labels, test_fraction=1.0)
    with pytest.raises(DataError):
        data.stratified_rows(np.array([0, 1]))
