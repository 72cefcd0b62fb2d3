from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dd_jax.data import read_idx, read_idx_pair
from dd_jax.errors import DataError

IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)


def encode(array, code=8):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.tobytes()


def compress(raw):
    return gzip.compress(raw, mtime=0)


@pytest.mark.parametrize("wrap", [bytes, compress])
def test_round_trip(tmp_path, wrap):
    path = tmp_path / "x"
    path.write_bytes(wrap(encode(IMAGES)))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


@pytest.mark.parametrize(
    "code, dtype", [(9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_other_types_come_in_native_order(tmp_path, code, dtype):
    array = np.array([[-3, 100]], dtype)
    (tmp_path / "x").write_bytes(encode(array, code))
    found = read_idx(tmp_path / "x")
    assert found.dtype.isnative and found.tolist() == [[-3, 100]]


@pytest.mark.parametrize("wrap", [bytes, compress])
def test_every_truncation_is_refused(tmp_path, wrap):
    whole, path = wrap(encode(IMAGES)), tmp_path / "x"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="x"):
            read_idx(path)


@pytest.mark.parametrize("wrap", [bytes, compress])
def test_over_long_names_expected_bytes(tmp_path, wrap):
    (tmp_path / "x").write_bytes(wrap(encode(IMAGES) + b"!"))
    with pytest.raises(DataError, match="expected 48 bytes .* found more than 48"):
        read_idx(tmp_path / "x")


def test_truncation_names_both_sizes(tmp_path):
    (tmp_path / "x").write_bytes(encode(IMAGES)[:-5])
    with pytest.raises(DataError, match="expected 48 bytes .* found 43"):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize("size", [0, 2**31, 2**32 - 1])
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_extreme_dimensions(tmp_path, size, rank):
    (tmp_path / "x").write_bytes(bytes([0, 0, 8, rank]) + struct.pack(">I", size) * rank)
    with pytest.raises(DataError):
        read_idx(tmp_path / "x")


@pytest.mark.parametrize(
    "magic", [b"\0\0\x08\0", b"\0\0\x08\xff", b"\0\1\x08\1", b"\0\0\x07\1", b"<htm"]
)
def test_wrong_magic(tmp_path, magic):
    (tmp_path / "x").write_bytes(magic + bytes(40))
    with pytest.raises(DataError):
        read_idx(tmp_path / "x")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_idx(path)


def test_a_bomb_stops_at_the_limit(tmp_path):
    (tmp_path / "x").write_bytes(compress(encode(np.zeros((1, 1), np.uint8)) + bytes(10**7)))
    with pytest.raises(DataError, match="more than 1"):
        read_idx(tmp_path / "x")
    (tmp_path / "y").write_bytes(encode(IMAGES))
    with pytest.raises(DataError, match="between 1 and 47"):
        read_idx(tmp_path / "y", max_bytes=47)


def test_pair_must_belong_together(tmp_path):
    x, y, z = (tmp_path / n for n in "xyz")
    x.write_bytes(encode(IMAGES))
    y.write_bytes(encode(np.array([0, 1, 0], np.uint8)))
    z.write_bytes(encode(np.array([0, 1], np.uint8)))
    assert read_idx_pair(x, y)[1].tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="swapped"):
        read_idx_pair(y, x)
    with pytest.raises(DataError, match="3 images but .* 2 labels"):
        read_idx_pair(x, z)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 7), st.booleans(), st.booleans())
def test_fuzz_raises_only_data_error(tmp_path_factory, tail, place, bit, flip, packed):
    raw = bytearray(encode(IMAGES))
    if packed:
        raw = bytearray(compress(bytes(raw)))
    if flip:
        raw[place % len(raw)] ^= 1 << bit
    else:
        raw[place:] = tail
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(raw)
    try:
        assert isinstance(read_idx(path), np.ndarray)
    except DataError as error:
        assert "fuzz" in str(error)
