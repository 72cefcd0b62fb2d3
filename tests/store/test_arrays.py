"""Trees of arrays in one file: back in the same tree, all of it checked."""

from __future__ import annotations

import pickle
import random
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from dd_jax.errors import CheckpointError, SetFileError
from dd_jax.store import container, read_arrays, read_card, write_arrays

CARD = {"kind": "teacher", "settings": {"epochs": 3, "rates": [0.1, 0.2]}}


class State(NamedTuple):
    mean: np.ndarray
    count: np.ndarray


def tree():
    numbers = np.arange(6).reshape(2, 3)
    return {
        "params": {"conv": {"kernel": numbers.astype(np.float32), "bias": np.zeros(0, np.float32)}},
        "state": State(np.float32(0.5), np.int32(7)),
        "pair": (numbers.astype(np.uint8), [numbers > 2, numbers.astype(np.int64)]),
        "half": numbers.astype(np.float16), "brain": numbers.astype(ml_dtypes.bfloat16),
        "double": numbers.T.astype(np.float64), "nothing": None,
    }


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(x, y)


def test_a_tree_comes_back(tmp_path):
    path = write_arrays(tmp_path / "a.safetensors", tree(), CARD)
    assert_equal(read_arrays(path, tree()), tree())
    assert read_card(path) == CARD
    names = read_arrays(path)
    assert sorted(names) == ["brain", "double", "half", "pair", "params", "state"]
    np.testing.assert_array_equal(names["pair"]["1"]["0"], tree()["pair"][1][0])
    assert names["state"]["count"] == 7
    assert write_arrays(tmp_path / "b", tree(), CARD).read_bytes() == path.read_bytes()
    found = safetensors.numpy.load_file(path)
    assert "params/conv/kernel" in found and found["state/mean"].shape == ()


@pytest.mark.parametrize("alone", [np.arange(3), np.float32(2), jnp.ones(2)], ids=range(3))
def test_one_array_and_no_array(tmp_path, alone):
    path = write_arrays(tmp_path / "a", alone, {})
    np.testing.assert_array_equal(read_arrays(path), alone)
    np.testing.assert_array_equal(read_arrays(path, alone), alone)
    assert read_arrays(write_arrays(tmp_path / "b", {}, {})) == {}


def test_shapes_are_enough_to_read_by(tmp_path):
    given = {"a": jnp.ones((2, 3)), "b": jnp.arange(2)}
    path = write_arrays(tmp_path / "a", given, {})
    assert_equal(read_arrays(path, jax.eval_shape(lambda: given)), given)


KERNEL = np.ones((2, 2), np.float32)


@pytest.mark.parametrize("like, match", [
    ({"a": KERNEL}, "also holds 'b'"),
    ({"a": KERNEL, "b": KERNEL, "c": KERNEL}, "lacks 'c', it has 'a', 'b'"),
    ({"a": KERNEL, "b": KERNEL[0]}, r"'b' as float32\[2, 2\], expected float32\[2\]"),
    ({"a": KERNEL, "b": KERNEL.astype(np.float64)}, r"expected float64\[2, 2\]"),
    ((KERNEL, KERNEL), "lacks '0'"),
    ((), "also holds"),
], ids=range(6))
def test_another_tree_is_refused(tmp_path, like, match):
    path = write_arrays(tmp_path / "a", {"a": KERNEL, "b": KERNEL}, {})
    with pytest.raises(CheckpointError, match=match) as caught:
        read_arrays(path, like)
    assert str(path) in caught.value.message and caught.value.fix


@pytest.mark.parametrize("arrays, card, match", [
    ({"a": "text"}, {}, "'a' is a str"),
    ({"a": np.array(["text"])}, {}, "dtype <U4"),
    ({"a": np.array([object()])}, {}, "dtype object"),
    ({"a": jax.random.key(0)}, {}, "key_data"),
    ({"a": 1j * KERNEL}, {}, "complex"),
    ({"a/b": KERNEL}, {}, "names without '/'"),
    ({"": KERNEL}, {}, "names without"),
    ({".": KERNEL}, {}, "names without"),
    ({"a": [KERNEL], "b": {0: KERNEL, "0": KERNEL}}, {}, None),
    ({"a": KERNEL}, {"x": float("nan")}, "card.x is nan"),
    ({"a": KERNEL}, {"x": KERNEL}, "card.x is a ndarray"),
], ids=range(11))
def test_what_cannot_be_written(tmp_path, arrays, card, match):
    error = (CheckpointError, ValueError, TypeError) if match is None else CheckpointError
    with pytest.raises(error, match=match):
        write_arrays(tmp_path / "a", arrays, card)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(SetFileError, match="is a folder"):
        write_arrays(tmp_path, {"a": KERNEL}, {})


def test_damage_is_found_wherever_it_is(tmp_path):
    path = write_arrays(tmp_path / "a", tree(), CARD)
    whole = path.read_bytes()
    draw = random.Random(0)
    for length in (0, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="make it again"):
            read_arrays(path)
    changed_card = whole.replace(b"teacher", b"teachel")
    for at in [*draw.sample(range(len(whole)), 200), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            found = read_arrays(path, tree())
        except CheckpointError:
            continue
        assert_equal(found, tree())
    path.write_bytes(changed_card)
    for read in (read_arrays, read_card):
        with pytest.raises(CheckpointError, match="the card changed"):
            read(path)


def packed(tensors, kind="dd_jax.arrays", **card):
    return container.pack(tensors, {"format_version": 1, "card": {}, **card}, kind=kind)


@pytest.mark.parametrize("blob, match", [
    (packed({"a": KERNEL}, format_version=2), "version 2, this release reads 1.*upgrade"),
    (packed({"a": KERNEL}, format_version="x"), "version x"),
    (packed({"a": KERNEL}, card=3), "has no card"),
    (packed({"a": KERNEL}, kind="dd_jax.set"), "'dd_jax.set', expected 'dd_jax.arrays'"),
    (packed({"a": KERNEL, "a/b": KERNEL}), "below another array"),
    (packed({"a/" * 10_000: KERNEL}), "a name of 10000 parts"),
    (pickle.dumps([1, 2, 3]), "never unpickles"),
    (b"PK\x03\x04 and more", "zip archive"),
    (safetensors.numpy.save({"a": KERNEL}), "without a dd_jax card"),
    (b"", "not a safetensors file"),
], ids=range(10))
def test_foreign_files_are_refused(tmp_path, blob, match):
    path = tmp_path / "a"
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match=match) as caught:
        read_arrays(path)
    assert caught.value.fix and str(path) in caught.value.message


def test_caps_and_missing_files(tmp_path):
    path = write_arrays(tmp_path / "a", tree(), CARD)
    with pytest.raises(CheckpointError, match="cap of 100"):
        read_arrays(path, max_bytes=100)
    for read in (read_arrays, read_card):
        with pytest.raises(CheckpointError, match="does not exist"):
            read(tmp_path / "none")
