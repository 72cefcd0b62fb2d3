"""The distilled-set file: round trips, equal bytes, golden files, atomic writes, words."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from dd_jax import store
from dd_jax.data.normalise import denormalise, normalise
from dd_jax.errors import SetFileError
from dd_jax.store import container, setfile
from dd_jax.store.atomic import write_atomically
from dd_jax.store.record import array_bytes
from dd_jax.types import SyntheticSet
from tests.store.tiny_sets import parts, tiny, write_parts

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "set_v1.safetensors"
KINDS = ("none", "standardise", "zca", "zca_per_image")


def assert_same(a, b):
    for x, y in zip(a.synthetic, b.synthetic):
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype == y.dtype == np.float32
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    leaves, others = jax.tree.flatten(a.normaliser), jax.tree.flatten(b.normaliser)
    assert leaves[1] == others[1]
    for x, y in zip(leaves[0], others[0]):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
    for field in dataclasses.fields(a):
        if field.name not in ("synthetic", "normaliser"):
            assert getattr(a, field.name) == getattr(b, field.name), field.name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [None, 0.0, 0.01, [0.01, 0.02, 0.03]], ids=str)
def test_round_trip(tmp_path, kind, rate):
    made = tiny(kind, rate=rate)
    again = store.load(store.save(tmp_path / "a.safetensors", made))
    assert_same(made, again)
    assert isinstance(again.synthetic.images, jax.Array)


@pytest.mark.parametrize("kind", ("none", "standardise", "zca"))
def test_a_loaded_normaliser_still_works_and_inverts(tmp_path, kind):
    loaded = store.load(store.save(tmp_path / "a.safetensors", tiny(kind))).normaliser
    x = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 2, 3, 2)
    np.testing.assert_allclose(denormalise(loaded, normalise(loaded, x)), x, atol=1e-5)


def test_tuples_and_numpy_scalars_in_settings_become_plain(tmp_path):
    made = tiny(recipe={"method": "dm", "sizes": (1, 2), "rate": np.float32(0.5), "n": np.int64(3)})
    again = store.load(store.save(tmp_path / "a.safetensors", made))
    assert again.recipe == {"method": "dm", "sizes": [1, 2], "rate": 0.5, "n": 3}


def test_odd_memory_layouts_are_stored_by_value(tmp_path):
    made = tiny()
    images = np.asfortranarray(made.synthetic.images)[::-1]
    odd = dataclasses.replace(made, synthetic=made.synthetic._replace(images=images))
    loaded = store.load(store.save(tmp_path / "a.safetensors", odd))
    np.testing.assert_array_equal(np.asarray(loaded.synthetic.images), images)


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    code = (
        "import sys; from dd_jax import store; from tests.store.tiny_sets import tiny\n"
        "store.save(sys.argv[1], tiny('zca'))"
    )
    made = []
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.safetensors"
        env = {**os.environ, "PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu", "TZ": f"UTC{seed}"}
        subprocess.run([sys.executable, "-c", code, path], check=True, cwd=ROOT, env=env)
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0] == store.save(tmp_path / "own.safetensors", tiny("zca")).read_bytes()


def test_key_order_of_settings_does_not_change_the_bytes(tmp_path):
    a = store.save(tmp_path / "a", tiny(recipe={"method": "m", "b": 1, "c": {"x": 1, "y": 2}}))
    b = store.save(tmp_path / "b", tiny(recipe={"c": {"y": 2, "x": 1}, "b": 1, "method": "m"}))
    assert a.read_bytes() == b.read_bytes()


def test_golden_version_1_loads():
    """To write it anew (only with a new format version, under a new name):
    store.save(GOLDEN, tiny("zca"))."""
    assert_same(tiny("zca"), store.load(GOLDEN))


def test_an_older_version_goes_through_the_migrations(tmp_path, monkeypatch):
    tensors, card = parts(tiny(), tmp_path / "a")
    card["format_version"] = 0
    card["cite"] = card.pop("citation")
    old = write_parts(tmp_path / "old", tensors, card)
    with pytest.raises(SetFileError, match="format_version"):
        store.load(old)

    def rename(card, tensors):
        card = {**card, "format_version": 1, "citation": card["cite"]}
        return card, tensors

    monkeypatch.setitem(setfile._MIGRATIONS, 0, rename)
    assert_same(tiny(), store.load(old))


def test_cost_counts_images_labels_and_rates():
    assert tiny(rate=None).cost_bytes == store.Cost(4 * 4 * 12, 4 * 4 * 2, 0, 0)
    assert tiny(rate=[0.1, 0.2]).cost_bytes.total == 4 * (4 * 12 + 4 * 2 + 2)
    half = SyntheticSet(np.zeros((1, 2, 2, 1), np.uint8), np.zeros((1, 2), np.float16))
    assert array_bytes(half) == 4 + 4


def test_summary_tells_what_a_user_must_know():
    text = store.summary(tiny("zca"))
    for part in ("frepo", "toy", "4x2x3x2", "centred times 2", "zca", "228 (", "optimiser.rate",
                 "@article", "min -0.5", "max 1.5", "0.01", "steps = 100", "per class     2"):
        assert part in text, part


def test_summary_lets_no_control_character_through():
    evil = "a\x1b[2Jb\rc\n" + "z" * 10_000
    spec = dataclasses.replace(tiny().spec, name=evil, class_names=(evil, "b"))
    text = store.summary(tiny(spec=spec, recipe={"method": evil, evil: evil}, citation=evil))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert max(map(len, text.splitlines())) < 220


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(tmp_path):
    path = store.save(tmp_path / "a.safetensors", tiny())
    before = path.read_bytes()

    def fill(file):
        file.write(b"x" * 10)
        raise OSError(28, "No space left on device")

    with pytest.raises(SetFileError, match="No space left.*bytes are free"):
        write_atomically(path, fill)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.safetensors"]


def test_save_makes_folders_and_replaces_files(tmp_path):
    path = tmp_path / "new" / "deep" / "a.safetensors"
    store.save(path, tiny())
    store.save(path, tiny(citation="other"))
    assert store.load(path).citation == "other" and os.listdir(path.parent) == [path.name]


def test_save_obeys_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        assert store.save(tmp_path / "a", tiny()).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


def test_save_into_a_folder_or_through_a_file_is_refused(tmp_path):
    with pytest.raises(SetFileError, match="is a folder"):
        store.save(tmp_path, tiny())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SetFileError, match="cannot write"):
        store.save(tmp_path / "file" / "a", tiny())


def test_content_hash_sees_names_shapes_and_values():
    a = {"x": np.zeros((2, 3), np.float32)}
    others = [{"y": a["x"]}, {"x": a["x"].reshape(3, 2)}, {"x": a["x"] + 1}]
    assert len({container.content_hash(t) for t in [a, *others]}) == 4
