from __future__ import annotations

import builtins
import gzip
import hashlib
import importlib.resources
import struct
import subprocess
import sys

import numpy as np
import pytest

from dd_jax import data
from dd_jax.data import embedded, sources
from dd_jax.errors import ConfigError, DataError, MissingPackageError

RNG = np.random.default_rng(0)


def write_idx(path, array):
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    raw = head + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def idx_folder(folder, suffix=".gz", classes=10):
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 20), ("t10k", 10)):
        images = RNG.integers(0, 256, (count, 8, 8), np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        labels = (np.arange(count) % classes).astype(np.uint8)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return folder


def block(monkeypatch, package):
    real = builtins.__import__

    def blocked(name, *rest, **named):
        if name.split(".")[0] == package:
            raise ImportError("blocked")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", blocked)


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.delenv(sources.ENVIRONMENT, raising=False)
    block(monkeypatch, "tensorflow_datasets")
    bare = sources.Known("fashion_mnist", (str(tmp_path / "system"),), "the Debian package x")
    table = {"fashion_mnist": lambda path: sources._find(bare, path)}
    monkeypatch.setattr(sources, "SOURCES", table)
    return tmp_path


def test_embedded_counts_balance_and_hash():
    split = data.load()
    assert split.train.images.shape == (8000, 28, 28, 1)
    assert split.test.images.shape == (2000, 28, 28, 1)
    assert split.train.class_counts.tolist() == [800] * 10
    assert split.test.class_counts.tolist() == [200] * 10
    assert split.train.spec.class_names[9] == "Ankle boot"
    folder = importlib.resources.files("dd_jax.data") / "embedded"
    packed = (folder / embedded.FILE).read_bytes()
    assert len(packed) <= 5_000_000
    assert hashlib.sha256(packed).hexdigest() in (folder / "SHA256").read_text()
    assert "Copyright (c) 2017 Zalando SE" in (folder / "LICENSE").read_text()
    pixels = np.concatenate([split.train.images, split.test.images])
    # of the same rows taken from the official files without this library
    known = "532b27132bd8caa35f665c9925128b23fb70062d1794f5f69d991615405fc578"
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == known


def test_embedded_damage_is_found(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        embedded.embedded_arrays(tmp_path)
    folder = importlib.resources.files("dd_jax.data") / "embedded"
    raw = bytearray((folder / embedded.FILE).read_bytes())
    raw[5000] ^= 1
    (tmp_path / embedded.FILE).write_bytes(raw)
    (tmp_path / "SHA256").write_text((folder / "SHA256").read_text())
    with pytest.raises(DataError, match="SHA-256"):
        embedded.embedded_arrays(tmp_path)
    (tmp_path / "SHA256").write_text(hashlib.sha256(raw).hexdigest())
    with pytest.raises(DataError, match="decompressed"):
        embedded.embedded_arrays(tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_mnist_from_a_given_folder(tmp_path, suffix):
    split = data.load("fashion_mnist", path=idx_folder(tmp_path, suffix))
    assert split.train.spec.name == "fashion_mnist" and split.train.spec.shape == (8, 8, 1)
    assert split.train.spec.class_names[0] == "T-shirt/top"
    assert split.train.class_counts.tolist() == [2] * 10


@pytest.mark.parametrize("place", ["", "fashion_mnist"])
def test_fashion_mnist_from_the_environment(nothing_installed, monkeypatch, place):
    idx_folder(nothing_installed / "mine" / place)
    monkeypatch.setenv(sources.ENVIRONMENT, str(nothing_installed / "mine"))
    assert len(data.load("fashion_mnist").train.labels) == 20


def test_fashion_mnist_from_the_system_folder(nothing_installed):
    idx_folder(nothing_installed / "system")
    assert len(data.load("fashion_mnist").test.labels) == 10


def test_fashion_mnist_nowhere_lists_what_was_tried(nothing_installed):
    with pytest.raises(DataError) as caught:
        data.load("fashion_mnist")
    for word in ("DD_JAX_DATA", "system (missing)", "tensorflow-datasets", "Debian package"):
        assert word in str(caught.value)
    assert "dataset-fashion-mnist" in sources.KNOWN[0].package


def test_damage_is_not_skipped(nothing_installed):
    folder = idx_folder(nothing_installed / "system", suffix="")
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="train-images-idx3-ubyte: expected 1280 bytes"):
        data.load("fashion_mnist")
    path.unlink()
    with pytest.raises(DataError, match="no file|was not found"):
        data.load("fashion_mnist")


def test_paths(tmp_path):
    assert data.load(idx_folder(tmp_path / "my.set")).train.spec.name == "my.set"
    (tmp_path / "my.set" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels"):
        data.load(tmp_path / "my.set")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "readme").write_text("?")
    with pytest.raises(DataError, match="readme"):
        data.load(tmp_path / "odd")
    with pytest.raises(DataError, match="no such file"):
        data.load(tmp_path / "none")
    with pytest.raises(DataError, match="no such file"):
        data.load("fashion_mnist", path=tmp_path / "none")
    with pytest.raises(DataError, match="known layout"):
        data.load(tmp_path / "odd" / "readme")


def test_unknown_name_suggests():
    with pytest.raises(ConfigError, match="did you mean 'fashion_mnist'"):
        data.load("fashion_mnits")


def test_tfds_missing_or_broken(monkeypatch):
    block(monkeypatch, "tensorflow_datasets")
    with pytest.raises(MissingPackageError, match=r"dd_jax\[tfds\]"):
        data.load("tfds:mnist")


def test_import_touches_no_heavy_package():
    code = (
        "import sys, dd_jax.data, jax\n"
        "heavy = {'flax', 'orbax', 'matplotlib', 'tensorflow', 'tensorflow_datasets', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert callable(dd_jax.data.normalise) and callable(dd_jax.data.load)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
