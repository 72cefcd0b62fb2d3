"""Builds the data set embedded in dd_jax from the four official Fashion-MNIST files.

    python experiments/make_embedded.py [folder with the idx.gz files]

Takes the first 800 training and 200 test images of each class in file order, class by class, and
writes the raw bytes as one .xz file beside its SHA-256. The pixels are the same on every machine;
the compressed bytes may differ between versions of liblzma, so the hash is written with them.
"""

from __future__ import annotations

import hashlib
import lzma
import pathlib
import sys

import numpy as np

from dd_jax.data.embedded import FILE, TEST_PER_CLASS, TRAIN_PER_CLASS
from dd_jax.data.idx import read_idx_pair

SOURCE = "/usr/share/datasets/fashion-mnist"
TARGET = pathlib.Path(__file__).resolve().parent.parent / "dd_jax" / "data" / "embedded"
# lc=4 (literal context of four bits) suits grey-level images a little better than the default.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def first_per_class(folder: pathlib.Path, part: str, count: int) -> np.ndarray:
    """The first `count` images of each of the ten classes, [10 * count, 28, 28] uint8."""
    images, labels = read_idx_pair(
        folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    )
    return np.concatenate([images[np.flatnonzero(labels == c)[:count]] for c in range(10)])


def main() -> None:
    """Writes the file and its hash."""
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else SOURCE)
    train = first_per_class(folder, "train", TRAIN_PER_CLASS)
    test = first_per_class(folder, "t10k", TEST_PER_CLASS)
    packed = lzma.compress(train.tobytes() + test.tobytes(), lzma.FORMAT_XZ, filters=FILTERS)
    TARGET.mkdir(exist_ok=True)
    (TARGET / FILE).write_bytes(packed)
    (TARGET / "SHA256").write_text(f"{hashlib.sha256(packed).hexdigest()}  {FILE}\n", "ascii")
    print(f"{len(packed)} bytes")


if __name__ == "__main__":
    main()
