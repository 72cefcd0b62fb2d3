"""Stores are what a live teacher says of the same views; bytes, damage, and kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data import standardise
from dd_jax.errors import CheckpointError, ConfigError, NonFiniteError, RunStopped, SetFileError
from dd_jax.labels.codecs import coded
from dd_jax.labels.draws import drawn_for, show
from dd_jax.labels.store_settings import StoreSettings, store_settings
from dd_jax.run import relabel as relabelling
from dd_jax.store import cost_with, open_views, read_views
from dd_jax.store.view_store import plan_of, views_of
from tests.labels import stored

NAMES = ("full", "top3", "renormalised3", "mr3", "quant4", "quant3store", "rank2", "pruned2",
         "top3+pruned3")


def live(rule, key, batch, teachers, kind="logits", temperature=1.0, train=False):
    """What teachers say of the views of a recorded batch, in float32: a mean of logits."""
    drawn = drawn_for(rule, key, batch)
    images = jnp.asarray(stored.distilled().synthetic.images)[drawn.rows]
    images, _ = show(rule, drawn, images, None)
    logits = sum(network.apply(variables, images, train).logits
                 for network, variables in teachers) / len(teachers)
    return np.asarray(logits if kind == "logits" else jax.nn.softmax(logits / temperature))


def batches_of(store):
    """(rule, codec, key, recorded numbers of the batches)."""
    rule, codec, key = views_of(store)
    return rule, codec, key, np.asarray(relabelling.pruned_batches(rule, key))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", ["key", "draws"])
def test_a_store_is_the_live_teacher_to_its_precision_and_its_bytes_are_told(name, kept, tmp_path):
    settings = store_settings(name, **stored.SMALL, kept=kept, temperature=2.0)
    plan = plan_of(settings, stored.distilled())
    store = stored.store_at(tmp_path / "a.safetensors", name, kept=kept, temperature=2.0)
    assert os.stat(store.path).st_size - store.header_bytes == plan.bytes == store.bytes
    assert cost_with(stored.distilled(), store).label_store == plan.bytes
    arrays, (rule, codec, key, numbers) = read_views(store), batches_of(store)
    assert sum(x.nbytes for x in arrays.values()) == plan.bytes and rule == plan.rule
    wanted = np.stack([live(rule, key, b, [stored.teacher()], codec.kind, 2.0) for b in numbers])
    found = np.asarray(codec.decode({n.split(".", 1)[1]: x for n, x in arrays.items()
                                     if n.startswith(("labels.", "shared."))}))
    again = np.asarray(codec.decode(coded(wanted, codec)))
    # The last bits of a network differ between programs, and may cross a level of quantisation.
    level = np.abs(wanted).max() / (2 ** getattr(codec, "bits", 10) - 1)
    finite = np.isfinite(again)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    np.testing.assert_allclose(found[finite], again[finite], atol=2.1 * level)
    assert np.mean(np.abs(found[finite] - again[finite]) < 1e-2) > 0.95
    if kept == "draws":
        np.testing.assert_array_equal(arrays["rows"][0], drawn_for(rule, key, numbers[0]).rows)


def test_all_names_take_less_than_full_and_say_so():
    def size(name):
        return plan_of(store_settings(name, epochs=30, batch_size=6), stored.distilled()).bytes

    labels = 30 * stored.COUNT
    assert size("full") == labels * stored.CLASSES * 2
    assert size("top3") == labels * 3 * 3 and size("mr2") == labels * 2 * 3
    assert size("quant4") == labels * (3 + 4) and size("quant4store") == labels * 3 + 8
    assert size("rank2") == labels * 2 * 2 + 2 * 5 * 2
    assert size("full+pruned10") == size("pruned10") == size("full") // 10


def test_a_committee_is_averaged_as_settings_say(tmp_path):
    two = [stored.teacher(0), stored.teacher(1)]
    store = stored.store_at(tmp_path / "z.safetensors", teachers=two, average="logits")
    rule, codec, key, numbers = batches_of(store)
    np.testing.assert_allclose(read_views(store)["labels.values"][4],
                               live(rule, key, numbers[4], two), rtol=2e-3, atol=2e-3)
    store = stored.store_at(tmp_path / "p.safetensors", teachers=two, temperature=3.0,
                            options=(("kind", "probabilities"),))
    wanted = np.mean([live(rule, key, numbers[4], [t], "probabilities", 3.0) for t in two], axis=0)
    np.testing.assert_allclose(read_views(store)["labels.values"][4], wanted, atol=1e-3)
    store = stored.store_at(tmp_path / "q.safetensors", teachers=two, temperature=3.0)
    shares = jax.nn.softmax(read_views(store)["labels.values"][4].astype(np.float32) / 3.0)
    np.testing.assert_allclose(shares, wanted, atol=2e-3)


def test_a_teacher_may_take_the_statistics_of_the_batch(tmp_path):
    teachers = [stored.teacher(0, "batch")]
    store = stored.store_at(tmp_path / "a.safetensors", teachers=teachers, statistics="batch")
    rule, codec, key, numbers = batches_of(store)
    found = read_views(store)["labels.values"][1]
    np.testing.assert_allclose(found, live(rule, key, numbers[1], teachers, train=True),
                               rtol=5e-3, atol=5e-3)
    running = live(rule, key, numbers[1], teachers)
    assert np.abs(found - running).max() > 0.01


def test_real_data_on_the_device_and_on_the_host_is_labelled_alike(toy, toy_on_host, tmp_path):
    from dd_jax import nets

    network = nets.mlp(toy.spec, width=4)
    teacher = network, network.init(jax.random.key(0))
    normaliser, settings = standardise(toy), store_settings("full", epochs=2, batch_size=16)
    found = [read_views(relabelling.relabel(tmp_path / f"{i}.safetensors", data, teacher, settings,
                                            key=0, normaliser=normaliser, show_progress=False))
             for i, data in enumerate((toy, toy_on_host))]
    np.testing.assert_allclose(found[0]["labels.values"].astype(np.float32),
                               found[1]["labels.values"].astype(np.float32), atol=5e-3)
    assert found[0]["labels.values"].shape == (8, 16, 2)
    with pytest.raises(ConfigError, match="no normaliser of its own"):
        relabelling.relabel(tmp_path / "b.safetensors", toy, teacher, settings, key=0)


@pytest.mark.parametrize("name", ["full", "quant3store", "top3+pruned2"])
def test_a_stopped_store_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    whole = stored.store_at(tmp_path / "whole.safetensors", name, together=1)
    write, count = relabelling.write_arrays, []

    def stopping(*args):
        count.append(args[0])
        if len(count) > 2:
            raise RunStopped("here")
        return write(*args)

    monkeypatch.setattr(relabelling, "write_arrays", stopping)
    with pytest.raises(RunStopped):
        stored.store_at(tmp_path / "parts.safetensors", name, together=1)
    monkeypatch.undo()
    first = count[0].stat().st_mtime_ns
    seen = []
    monkeypatch.setattr(relabelling, "write_arrays",
                        lambda *args: (seen.append(args[0]), write(*args))[1])
    assemble = relabelling._assemble

    def looking(path, folder, *rest):
        assert count[0].stat().st_mtime_ns == first
        assemble(path, folder, *rest)

    monkeypatch.setattr(relabelling, "_assemble", looking)
    found = stored.store_at(tmp_path / "parts.safetensors", name, together=1)
    assert found.path.read_bytes() == whole.path.read_bytes()
    assert not {*count[:2]} & {*seen} and not list(tmp_path.glob(".parts*"))


KILLED = """
import os, signal, sys
from dd_jax.run import relabel as relabelling
from tests.labels import stored
write, count = relabelling.write_arrays, []
def killing(*args):
    count.append(write(*args))
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
relabelling.write_arrays = killing
stored.store_at(sys.argv[1], "rank2", together=1)
"""


def test_a_killed_store_goes_on_to_the_same_bits(tmp_path):
    path = tmp_path / "killed.safetensors"
    child = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=200,
                           capture_output=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert not path.exists() and len(list(tmp_path.glob(".killed*/part_*"))) == 2
    found = stored.store_at(path, "rank2", together=1)
    whole = stored.store_at(tmp_path / "whole.safetensors", "rank2", together=1)
    assert found.path.read_bytes() == whole.path.read_bytes()


def test_parts_of_another_store_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(relabelling, "_assemble", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stored.store_at(tmp_path / "a.safetensors")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="part of another store"):
        stored.store_at(tmp_path / "a.safetensors", key=8)


def test_the_same_store_is_found_and_another_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    made = stored.store_at(path)
    before = path.stat().st_mtime_ns
    assert stored.store_at(path) == made and path.stat().st_mtime_ns == before
    with pytest.raises(SetFileError, match="another store: key"):
        stored.store_at(path, key=8)
    with pytest.raises(SetFileError, match="another store: teachers"):
        stored.store_at(path, teachers=stored.teacher(1))


def flipped(path, place):
    raw = bytearray(path.read_bytes())
    raw[place] ^= 16
    path.write_bytes(raw)


def test_a_flipped_byte_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    store = stored.store_at(path, "quant4store", kept="draws")
    raw = path.read_bytes()
    named = set()
    for place in range(store.header_bytes, len(raw), 11):
        flipped(path, place)
        with pytest.raises(SetFileError, match="is damaged") as caught:
            read_views(store)
        message = str(caught.value)
        named.add("shared" if "share" in message else message.split("batch ")[1].split()[0])
        path.write_bytes(raw)
    assert named == {"shared", *map(str, range(6))}
    # The codes of the labels of batch 4: they are the last tensor but for those of narrower types.
    arrays = read_views(store)
    at = raw.find(arrays["labels.codes"][4].tobytes(), store.header_bytes)
    flipped(path, at)
    with pytest.raises(SetFileError, match="batch 4 of 6"):
        read_views(store)


@pytest.mark.parametrize("damage", ["header", "cut", "longer", "empty", "gone"])
def test_a_damaged_header_or_length_is_told(damage, tmp_path):
    path = tmp_path / "a.safetensors"
    store = stored.store_at(path)
    raw = path.read_bytes()
    place = raw.find(b'"mixing') + 12
    {"header": lambda: flipped(path, place), "cut": lambda: path.write_bytes(raw[:-1]),
     "longer": lambda: path.write_bytes(raw + b"0"), "empty": lambda: path.write_bytes(b""),
     "gone": path.unlink}[damage]()
    for look in (open_views, lambda path: read_views(store)):
        with pytest.raises(SetFileError):
            look(path)


def test_labels_that_half_precision_cannot_hold_are_refused(tmp_path):
    network, variables = stored.teacher()
    loud = network, jax.tree.map(lambda x: 1e4 * x, variables)
    for name in ("full", "quant4", "rank2"):
        with pytest.raises(NonFiniteError, match="not finite as they are stored"):
            stored.store_at(tmp_path / f"{name}.safetensors", name, teachers=loud)
    stored.store_at(tmp_path / "b.safetensors", teachers=loud, options=(("dtype", "float32"),))


@pytest.mark.parametrize("name,words", [
    ("top6", "kept is 6, and labels have 5 classes"), ("rank6", "rank is 6"), ("quant9", "bits"),
    ("top", "has the part 'top'"), ("top3+full", "says codec, options twice"),
    ("pruned0.5", "keeps more"), ("pruned2+pruned4", "says pruned twice"), ("", "has the part ''")])
def test_names_that_cannot_be_are_refused(name, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        stored.store_at(tmp_path / "a.safetensors", name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make,words", [
    (lambda: StoreSettings("zip"), "codec of labels"),
    (lambda: store_settings("full", kept_="x"), "setting of a label store"),
    (lambda: StoreSettings(options=(("k", 2),)), "option of the codec"),
    (lambda: StoreSettings(temperature=0.0), "temperature is 0"),
    (lambda: StoreSettings(statistics="own"), "statistics of teachers"),
    (lambda: StoreSettings(average="median"), "average of teachers")])
def test_settings_that_cannot_be_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_teachers_that_do_not_fit_are_refused(tmp_path):
    from dd_jax import nets
    from dd_jax.types import DataSpec

    path = tmp_path / "a.safetensors"
    other = nets.mlp(DataSpec("x", stored.SHAPE, 3, tuple("abc")), width=4)
    with pytest.raises(ConfigError, match="has 3 classes, the set 5"):
        stored.store_at(path, teachers=(other, other.init(jax.random.key(0))))
    wide = nets.mlp(DataSpec("x", (9, 9, 1), 5, tuple("abcde")), width=4)
    with pytest.raises(ConfigError, match="cannot look at images of shape"):
        stored.store_at(path, teachers=(wide, wide.init(jax.random.key(0))))
    with pytest.raises(ConfigError, match="not pairs"):
        stored.store_at(path, teachers=[stored.NETWORK])
