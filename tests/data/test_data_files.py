"""CIFAR binary, npz and image-folder readers."""

from __future__ import annotations

import builtins
import io
import os
import resource
import struct
import zipfile

import numpy as np
import pytest

from dd_jax import data
from dd_jax.data.cifar import read_records
from dd_jax.errors import ConfigError, DataError, MissingPackageError

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)


def records(count, labels):
    planes = RNG.integers(0, 256, (count, 3, 32, 32), np.uint8)
    raw = b"".join(bytes(label) + plane.tobytes() for label, plane in zip(labels, planes))
    return raw, planes


def cifar10(folder):
    raw, planes = records(10, [(i,) for i in range(10)])
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(raw)
    (folder / "test_batch.bin").write_bytes(raw[:3073])
    return raw, planes


def test_cifar10_layout(tmp_path):
    _, planes = cifar10(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    split = data.read_cifar10(tmp_path)
    assert split.train.images.shape == (50, 32, 32, 3) and len(split.test.labels) == 1
    np.testing.assert_array_equal(split.train.images[13], planes[3].transpose(1, 2, 0))
    assert split.train.spec.class_names == tuple("abcdefghij")
    assert data.load(tmp_path).train.labels.tolist() == split.train.labels.tolist()


def test_cifar100_fine_and_coarse(tmp_path):
    raw, _ = records(100, [(i // 5, i) for i in range(100)])
    for part in ("train", "test"):
        (tmp_path / f"{part}.bin").write_bytes(raw)
    assert data.read_cifar100(tmp_path).train.labels.tolist() == list(range(100))
    coarse = data.read_cifar100(tmp_path, labels="coarse").train
    assert coarse.spec.num_classes == 20 and coarse.labels[-1] == 19
    with pytest.raises(ConfigError):
        data.read_cifar100(tmp_path, labels="finer")


@pytest.mark.parametrize("change", [lambda r: r[:-1], lambda r: r + b"!", lambda r: b""])
def test_cifar_wrong_size(tmp_path, change):
    raw, _ = cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").write_bytes(change(raw))
    with pytest.raises(DataError, match="data_batch_3.bin.* multiple of 3073"):
        data.read_cifar10(tmp_path)


def test_cifar_bad_label_and_missing_file(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(3073) + bytes([10]) + bytes(3072))
    with pytest.raises(DataError, match="record 1 has label 10"):
        read_records(path, (10,))
    cifar10(tmp_path)
    (tmp_path / "data_batch_5.bin").unlink()
    with pytest.raises(DataError, match="data_batch_5"):
        data.load(tmp_path)


X, Y = RNG.integers(0, 256, (10, 4, 4, 3), np.uint8), np.arange(10) % 2


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(tmp_path, save):
    path = tmp_path / "toy.npz"
    save(path, x_train=X, y_train=Y[:, None], x_test=X[:2], y_test=Y[:2].astype(">i4"))
    split = data.load(path)
    np.testing.assert_array_equal(split.train.images, X)
    assert split.test.labels.tolist() == [0, 1] and split.train.spec.name == "toy"


def test_npz_without_test_part_is_split_by_class(tmp_path):
    np.savez(tmp_path / "toy.npz", images=np.asfortranarray(X), labels=Y)
    split = data.from_npz(tmp_path / "toy.npz", test_fraction=0.4, seed=1)
    assert split.train.class_counts.tolist() == [3, 3]
    assert split.test.class_counts.tolist() == [2, 2]
    together = np.concatenate([split.train.images, split.test.images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, X))


def test_npz_truncations_and_flips(tmp_path):
    path = tmp_path / "toy.npz"
    np.savez(path, images=X[:2], labels=Y[:2])
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="toy.npz"):
            data.read_npz(path)
    for place in range(len(whole)):
        raw = bytearray(whole)
        raw[place] ^= 0x10
        path.write_bytes(raw)
        try:
            found = data.read_npz(path)
        except DataError:
            continue
        for name, array in (("images", X[:2]), ("labels", Y[:2])):
            if name in found:  # a flipped name, date or attribute leaves the content alone
                np.testing.assert_array_equal(found[name], array)


def craft(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members:
            archive.writestr(name, raw)


def npy(shape, dtype="|u1", payload=b""):
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + payload


@pytest.mark.parametrize(
    "members",
    [
        [("../images.npy", npy((1,), payload=b"1"))],
        [("a/b.npy", npy((1,), payload=b"1"))],
        [("images.txt", b"hello")],
        [("images.npy", npy((100000, 100000)))],
        [("images.npy", npy((-1,), payload=b"1"))],
        [("images.npy", npy((2,), dtype="|O", payload=bytes(16)))],
        [("images.npy", b"\x93NUMPY\x01\x00\xff\xff")],
        [("images.npy", b"")],
        [("images.npy", npy((10**30,), payload=b"1"))],
        [(f"x{i}.npy", npy((1,), payload=b"1")) for i in range(65)],
    ],
)
def test_npz_hostile_members(tmp_path, members):
    craft(tmp_path / "bad.npz", members)
    with pytest.raises(DataError, match="bad.npz"):
        data.read_npz(tmp_path / "bad.npz")


def test_npz_object_array_runs_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    np.savez(tmp_path / "bad.npz", images=np.array([Trap()], object), labels=Y[:1])
    with pytest.raises(DataError, match="object arrays"):
        data.load(tmp_path / "bad.npz")
    assert not (tmp_path / "owned").exists()


def test_npz_huge_declaration_allocates_nothing(tmp_path):
    path = tmp_path / "bad.npz"
    craft(path, [("images.npy", npy((10 * 2**30,), payload=b"1"))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="declares shape"):
        data.read_npz(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    np.savez_compressed(path, images=np.zeros(10**6, np.uint8))
    with pytest.raises(DataError, match="above the limit"):
        data.read_npz(path, max_bytes=10**5)


def test_npz_wrong_keys(tmp_path):
    np.savez(tmp_path / "toy.npz", pictures=X, targets=Y)
    with pytest.raises(DataError, match="pictures, targets"):
        data.load(tmp_path / "toy.npz")


def picture(path, size=(8, 8), mode="RGB", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def folder(root, **options):
    for name, value in (("b", 200), ("a", 10)):
        for i in range(4):
            picture(root / name / f"{i}.png", value=value + i, mode="L", **options)


def test_folder_sorts_classes_and_splits(tmp_path):
    folder(tmp_path)
    (tmp_path / "a" / "notes.txt").write_text("ignored")
    split = data.from_folder(tmp_path, test_fraction=0.25)
    assert split.train.spec.class_names == ("a", "b") and split.train.spec.shape == (8, 8, 1)
    assert split.train.class_counts.tolist() == [3, 3] and len(split.test.labels) == 2
    bright = np.asarray(split.train.images)[:, 0, 0, 0] >= 200
    np.testing.assert_array_equal(bright, np.asarray(split.train.labels) == 1)


def test_folder_with_its_own_test_part(tmp_path):
    folder(tmp_path / "train")
    folder(tmp_path / "test")
    split = data.load(tmp_path)
    assert len(split.train.labels) == len(split.test.labels) == 8
    (tmp_path / "test" / "a").rename(tmp_path / "test" / "c")
    with pytest.raises(DataError, match="'a', 'c'"):
        data.load(tmp_path)


def test_folder_mixed_sizes_need_a_size(tmp_path):
    folder(tmp_path)
    picture(tmp_path / "a" / "wide.png", size=(20, 8))
    with pytest.raises(DataError, match="size="):
        data.from_folder(tmp_path)
    split = data.from_folder(tmp_path, size=(4, 6))
    assert split.train.spec.shape == (4, 6, 3)
    assert data.from_folder(tmp_path, size=4, channels=1).train.spec.shape == (4, 4, 1)
    for bad in (0, -3, (4,), "8"):
        with pytest.raises(ConfigError):
            data.from_folder(tmp_path, size=bad)


def test_folder_crops_about_the_centre(tmp_path):
    array = np.zeros((4, 12), np.uint8)
    array[:, 4:8] = 255
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(array).save(tmp_path / name / f"{i}.png")
    assert np.asarray(data.from_folder(tmp_path, size=4).train.images).min() == 255


def test_folder_damage(tmp_path):
    folder(tmp_path)
    (tmp_path / "a" / "broken.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    with pytest.raises(DataError, match="broken.png"):
        data.from_folder(tmp_path)


def test_folder_empty_class_and_no_classes(tmp_path):
    with pytest.raises(DataError, match="no class folder"):
        data.from_folder(tmp_path)
    folder(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="c: no image"):
        data.from_folder(tmp_path)
    with pytest.raises(DataError, match="cannot be listed"):
        data.from_folder(tmp_path / "none")


def test_folder_link_that_leaves_is_refused(tmp_path):
    picture(tmp_path / "outside.png")
    folder(tmp_path / "root")
    (tmp_path / "root" / "a" / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(DataError, match="link"):
        data.from_folder(tmp_path / "root")


def test_folder_declared_size_is_capped(tmp_path, monkeypatch):
    folder(tmp_path)
    monkeypatch.setattr("dd_jax.data.folder.MAX_PIXELS", 63)
    with pytest.raises(DataError, match="8x8 pixels"):
        data.from_folder(tmp_path)


def test_folder_without_pillow(tmp_path, monkeypatch):
    real = builtins.__import__

    def blocked(name, *rest, **named):
        if name.split(".")[0] == "PIL":
            raise ImportError("blocked")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(MissingPackageError, match="Pillow"):
        data.from_folder(tmp_path)


def test_encoded_bytes_never_pass_as_png(tmp_path):
    folder(tmp_path)
    stream = io.BytesIO()
    np.save(stream, X)
    (tmp_path / "b" / "fake.png").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="fake.png"):
        data.from_folder(tmp_path)
