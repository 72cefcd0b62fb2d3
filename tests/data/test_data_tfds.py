from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from dd_jax import data
from dd_jax.errors import DataError, MissingPackageError

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

# Images go in as encoded PNG bytes: tensorflow-datasets encodes arrays with TensorFlow only.
BUILDER = """
import io
import numpy as np
from PIL import Image
import tensorflow_datasets as tfds


class DdToyset(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            stream = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), 10 * i, np.uint8)).save(stream, "PNG")
            stream.seek(0)
            yield i, {"image": stream, "label": i % 2}
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    code = root / "code"
    code.mkdir()  # alone in its folder, which tensorflow-datasets lists
    (code / "dd_toyset_builder.py").write_text(BUILDER)
    sys.path.insert(0, str(code))
    try:
        module = importlib.import_module("dd_toyset_builder")
    finally:
        sys.path.remove(str(code))
    builder = module.DdToyset(data_dir=str(root / "data"), file_format="array_record")
    builder.download_and_prepare()
    return root / "data"


def test_reads_a_prepared_set(prepared):
    split = data.from_tfds("dd_toyset", data_dir=prepared)
    assert split.train.images.shape == (12, 8, 8, 3) and len(split.test.labels) == 4
    assert split.train.spec.class_names == ("cat", "dog")
    value = np.asarray(split.train.images)[:, 0, 0, 0] // 10
    np.testing.assert_array_equal(value % 2, np.asarray(split.train.labels))
    assert sorted(value.tolist()) == list(range(12))
    again = data.load("tfds:dd_toyset:1.0.0", path=prepared)
    assert data.fingerprint(again.train) == data.fingerprint(split.train)


def test_wrong_split_key_and_name(prepared):
    with pytest.raises(DataError, match="validation.*test, train"):
        data.from_tfds("dd_toyset", data_dir=prepared, split=("train", "validation"))
    with pytest.raises(DataError, match="picture.*image, label"):
        data.from_tfds("dd_toyset", data_dir=prepared, image_key="picture")
    with pytest.raises(DataError, match="no_such_set"):
        data.from_tfds("no_such_set", data_dir=prepared)
    with pytest.raises(DataError, match="local set"):
        data.from_tfds("huggingface:mnist", data_dir=prepared)


def test_unprepared_is_never_downloaded(prepared):
    with pytest.raises(DataError, match="not prepared"):
        data.from_tfds("fashion_mnist", data_dir=prepared)
    assert not (prepared / "fashion_mnist").exists()


def test_other_format_needs_tensorflow(prepared, monkeypatch):
    def refuse(self, *args, **named):
        raise NotImplementedError("no random access")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_data_source", refuse)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingPackageError, match="array_record"):
        data.from_tfds("dd_toyset", data_dir=prepared)
