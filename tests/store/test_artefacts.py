"""What is made once from real data: found again by what made it, never mistaken, never half."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax import nets
from dd_jax.data import from_arrays
from dd_jax.distill.needs import arrays, bank, experts, normaliser_of, teacher
from dd_jax.distill.plan import Plan, complete
from dd_jax.errors import CheckpointError, ConfigError, RunStopped
from dd_jax.store import lock
from dd_jax.store.artefacts import MANIFEST, Artefact, ArtefactStore, Got
from dd_jax.store.lock import locked
from tests.laws import members

ROOT = pathlib.Path(__file__).parents[2]
NETWORK = nets.mlp(members.SPEC, width=2, depth=2)


def means(*, kind="mean", settings=None, seed=0, needs=None, compute=None):
    """One number of the real images."""

    def mean(data, key, **have):
        return {"mean": jnp.mean(data.images) + jax.random.normal(key, ())}

    return arrays(kind, {"rate": 0.1, **(settings or {})}, compute or mean,
                  lambda: {"mean": jax.ShapeDtypeStruct((), jnp.float32)}, seed=seed,
                  needs=needs or {})


def walkers(count, **changes):
    """Experts of a tiny network."""
    training = {"epochs": 1, "batch_size": 32, "learning_rate": 0.1, **changes}
    return experts(NETWORK, count=count, training=training, settings={"start": ""},
                   normaliser=normaliser_of("standardise", members.toy_data()))


def networks(count):
    """A bank of networks that are not trained much."""

    def train(data, key, normaliser):
        start = NETWORK.init(key)
        return start, jax.tree.map(lambda x: x + 1, start)

    return bank(NETWORK, count, train, settings={}, normaliser=normaliser_of(
        "standardise", members.toy_data()))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


def never(*args, **options):
    raise AssertionError("made")


def the_folder(store):
    return store.folder / store.entries()[0].name


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(tmp_path / "store")


def test_equal_ones_have_an_address_and_others_another(toy, tmp_path, monkeypatch):
    def copy():
        return from_arrays(np.asarray(toy.images), np.asarray(toy.labels), name="toy",
                           num_classes=2)

    base = means().address(toy)
    assert len(base) == 24 and base == means().address(copy())
    assert base == means(compute=never).address(toy)  # what makes it is no part of what it is
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setenv("DD_JAX_ARTEFACTS", str(tmp_path))
    assert base == means().address(toy)
    other = from_arrays(255 - np.asarray(toy.images), np.asarray(toy.labels), name="toy",
                        num_classes=2)
    needs = [means(needs={"a": need}) for need in (
        means(kind="need"), means(kind="need", settings={"rate": 0.2}), means(kind="need", seed=1))]
    found = [means().address(other), *(each.address(toy) for each in (
        means(kind="other"), means(settings={"rate": 0.2}), means(settings={"more": 1}),
        means(seed=1), *needs, means(needs={"b": means(kind="need")})))]
    assert len({base, *found}) == 1 + len(found)
    # More of the same is the same; another training, network or normaliser is another.
    assert walkers(2).address(toy) == walkers(5).address(toy) != walkers(2, epochs=2).address(toy)
    assert networks(2).address(toy) == networks(5).address(toy)
    found = {teacher(nets.mlp(members.SPEC, width=width, depth=2), never, settings={},
                     normaliser=normaliser_of(name, toy)).address(toy)
             for width in (2, 3) for name in ("standardise", "zca")}
    assert len(found) == 4
    with pytest.raises(ConfigError, match="'a/b', expected a name"):
        means(kind="a/b")


def test_keys_depend_on_kind_and_seed(toy, store):
    found = [float(store.get(each, toy)["mean"]) for each in (
        means(), means(kind="other"), means(seed=1))]
    assert len(set(found)) == 3


def test_it_is_made_once_with_its_needs_and_then_reused(toy, store):
    need = means(kind="need")
    seen = []

    def compute(data, key, need):
        seen.append(float(need["mean"]))
        return need

    first = store.get(means(needs={"need": need}, compute=compute), toy)
    again = ArtefactStore(store.folder)
    assert again.get(means(needs={"need": need}, compute=never), toy) == first
    assert [(n.split("-")[0], how) for n, how, _ in store.report] == [
        ("need", "made"), ("mean", "made")]
    assert [(n.split("-")[0], how) for n, how, _ in again.report] == [("mean", "reused")]
    assert seen == [float(first["mean"])]
    known = json.loads((store.folder / store.report[1][0] / MANIFEST).read_text())
    assert known["identity"]["settings"] == {"rate": 0.1} and "jax" in known["versions"]
    assert store.has(need, toy) and not store.has(means(seed=3), toy)
    assert store.get(Artefact("given", {}, value=3), toy) == 3


def _flip(path):
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 255
    path.write_bytes(bytes(whole))


def _linked(path):
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


DAMAGES = {
    "cut manifest": (MANIFEST, lambda p: p.write_bytes(p.read_bytes()[:40])),
    "empty manifest": (MANIFEST, lambda p: p.write_bytes(b"")),
    "changed manifest": (MANIFEST, lambda p: p.write_text(p.read_text().replace("0.1", "0.2"))),
    "foreign manifest": (MANIFEST, lambda p: p.write_text('{"files": []}')),
    "manifest is a list": (MANIFEST, lambda p: p.write_text("[" * 3000)),
    "linked manifest": (MANIFEST, _linked),
    "manifest is a folder": (MANIFEST, lambda p: (p.unlink(), p.mkdir())),
    "missing file": ("*.safetensors", lambda p: p.unlink()),
    "longer file": ("*.safetensors", lambda p: p.write_bytes(p.read_bytes() + b"0")),
    "flipped bytes": ("*.safetensors", _flip),
    "linked file": ("*.safetensors", _linked),
}


@pytest.mark.parametrize("kind", ["arrays", "a bank"])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_one_is_named_and_made_again_only_when_asked(name, kind, toy, store):
    wanted = means() if kind == "arrays" else networks(2)
    store.get(wanted, toy)
    folder, (pattern, damage) = the_folder(store), DAMAGES[name]
    before = contents(folder)
    damage(sorted(folder.glob(pattern))[0])
    left = contents(folder)
    for _ in "ab":
        with pytest.raises(CheckpointError) as error:
            store.get(wanted, toy)
        assert str(folder) in error.value.message
        assert f"--store {store.folder} --remove {folder.name}" in error.value.fix
    assert contents(folder) == left
    store.remove(folder.name)
    store.get(wanted, toy)
    assert contents(folder) == before and [h for _, h, _ in store.report] == ["made", "made"]


def test_more_go_on_from_fewer_and_fewer_are_the_first_of_more(toy, store):
    for kind, first in ((walkers, lambda found: found.read(1, 1)),
                        (networks, lambda found: jax.tree.leaves(found[1])[0][1])):
        few = store.get(kind(2), toy)
        folder = store.folder / store.report[-1][0]
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
        more = store.get(kind(3), toy)
        assert len(kept) == 2 and all(p.stat().st_mtime_ns == t for p, t in kept.items())
        again = store.get(dataclasses.replace(kind(2), make=never), toy)
        for found in (more, again):
            np.testing.assert_array_equal(first(found), first(few))
        assert [how for _, how, _ in store.report[-3:]] == ["made", "made", "reused"]
    assert store.get(walkers(2), toy).experts == (0, 1)
    assert store.get(walkers(3), toy).experts == (0, 1, 2)


def test_one_damaged_expert_can_be_made_again_alone(toy, store):
    store.get(walkers(3), toy)
    folder = the_folder(store)
    before = contents(folder)
    _flip(folder / "expert_00001.safetensors")
    with pytest.raises(CheckpointError, match="delete expert_00001.*artefact.json beside it"):
        store.get(walkers(3), toy).read(1, 1)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("expert_0000[02]*")}
    for name in ("expert_00001.safetensors", MANIFEST):
        (folder / name).unlink()
    store.get(walkers(3), toy)
    assert contents(folder) == before
    assert all(path.stat().st_mtime_ns == then for path, then in times.items())


def test_growing_leaves_what_was_whole_before(toy, store):
    """Nothing is ever without a manifest between a smaller one and a larger."""
    store.get(networks(2), toy)
    folder = the_folder(store)

    def dying(data, key, folder, have, show_progress=None):
        (folder / "network_00002.safetensors").write_bytes(b"half")
        (folder / ".left.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get(dataclasses.replace(networks(3), make=dying), toy)
    store.get(dataclasses.replace(networks(2), make=never), toy)
    # What was finished but not yet listed is looked at when it is opened.
    with pytest.raises(CheckpointError, match="network_00002.*make it again"):
        store.get(networks(3), toy)
    assert not list(folder.glob(".*.tmp"))


def test_a_signal_stops_a_bank_between_its_networks(toy, store):
    whole = ArtefactStore(store.folder.with_name("whole"))
    whole.get(networks(3), toy)

    def train(data, key, normaliser):
        jax.debug.callback(lambda: os.kill(os.getpid(), signal.SIGTERM), ordered=True)
        start = NETWORK.init(key)
        return start, jax.tree.map(lambda x: x + 1, start)

    stopped = bank(NETWORK, 3, train, settings={}, normaliser=normaliser_of("standardise", toy))
    with pytest.raises(RunStopped, match="SIGTERM after 1 of 3 networks"):
        store.get(stopped, toy)
    assert [entry.finished for entry in store.entries()] == [False]
    store.get(networks(3), toy)
    assert contents(store.folder) == contents(whole.folder)


KILLED = """
import os, signal, sys
from tests.laws import members
from tests.store import test_artefacts as tests
from dd_jax.store.artefacts import ArtefactStore
replace, seen = os.replace, []
def until(source, target):
    if str(target).endswith(".safetensors") or "artefact.json" in str(target):
        seen.append(target)
        if len(seen) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(source, target)
os.replace = until
ArtefactStore(sys.argv[1]).get(getattr(tests, sys.argv[2])(3), members.toy_data())
"""


def start(*words):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    return subprocess.Popen([sys.executable, "-c", *map(str, words)], env=env, cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_kill_9_interrupts_goes_on_where_it_was(toy, tmp_path):
    """In the middle of the third part, and between the last part and the manifest."""
    kinds = {"walkers": walkers, "networks": networks}
    cases = [(name, at, tmp_path / f"{name}{at}") for name in kinds for at in (3, 4)]
    for name, at, folder in cases:
        child = start(KILLED, folder, name, at)
        assert child.wait(200) == -signal.SIGKILL, child.communicate()[1]
        store, whole = ArtefactStore(folder), ArtefactStore(tmp_path / name)
        entry, = store.entries()
        there = {path: path.stat().st_mtime_ns
                 for path in (folder / entry.name).glob("*.safetensors")}
        assert not entry.finished and len(there) == at - 1
        with locked(folder / entry.name):  # the lock went with the process
            pass
        store.get(kinds[name](3), toy)
        whole.get(kinds[name](3), toy)
        assert contents(folder) == contents(tmp_path / name)
        assert all(path.stat().st_mtime_ns == then for path, then in there.items())
        assert not list((folder / entry.name).glob(".*.tmp"))


SLOW = """
import sys, time, jax.numpy as jnp
from tests.laws import members
from tests.store import test_artefacts as tests
from dd_jax.store.artefacts import ArtefactStore
def slow(data, key):
    open(sys.argv[2], "a").write("made\\n")
    time.sleep(2.0)
    return {"mean": jnp.float32(3)}
store = ArtefactStore(sys.argv[1])
print(store.get(tests.means(compute=slow), members.toy_data())["mean"], store.report[0][1])
"""


def test_of_two_that_ask_at_once_one_makes_it_and_the_other_waits(toy, store, tmp_path):
    children = [start(SLOW, store.folder, tmp_path / "log") for _ in "ab"]
    told = [child.communicate(timeout=200) for child in children]
    assert sorted(out for out, _ in told) == ["3.0 made\n", "3.0 made by another\n"], told
    assert (tmp_path / "log").read_text() == "made\n"
    maker = 0 if told[0][0] == "3.0 made\n" else 1
    waiter = 1 - maker
    assert "making mean-" in told[maker][1] and "making mean-" not in told[waiter][1]
    assert "is being made by " in told[waiter][1]
    # Threads of one process as well.
    made = []

    def slow(data, key):
        made.append(time.sleep(0.2))
        return {"mean": jnp.float32(4)}

    threads = [threading.Thread(target=store.get, args=(means(seed=7, compute=slow), toy))
               for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_whoever_waits_is_told_for_whom_and_can_be_stopped(toy, store, capsys, monkeypatch):
    path = store.folder / f"mean-{means().address(toy)}"
    plan = Plan({"mean": means()}, lambda have: None)
    named = lock.named

    def and_be_asked_to_stop(owner):
        os.kill(os.getpid(), signal.SIGTERM)
        return named(owner)

    monkeypatch.setattr(lock, "named", and_be_asked_to_stop)
    with locked(path):
        with pytest.raises(RunStopped, match="SIGTERM while another process makes"):
            complete(plan, toy, artefacts=store)
    told = f"{path.name} is being made by pid {os.getpid()} on "
    assert told in capsys.readouterr().err
    assert store.entries() == [] and not path.with_name(f".{path.name}.owner").exists()
    assert str(Got("a", "made by another", 61.2)) == "a: waited 61.2 s, made by another"


def test_what_is_made_is_told_unless_it_shall_not(toy, store, capsys):
    store.get(walkers(1), toy)
    store.get(walkers(3), toy)
    made = store.report[0].name
    told = capsys.readouterr().err
    for text in ("1 of 1 files", "2 of 3 files"):
        assert f"making {made}, {text}, in {store.folder}\n" in told
    store.get(walkers(4), toy, show_progress=False)
    store.get(walkers(4), toy)
    told = capsys.readouterr().err  # a log may have a handler that writes there
    assert "making" not in told and "epoch" not in told


def test_prune_removes_what_is_unfinished_and_nobody_makes(toy, store):
    for seed in range(3):
        store.get(means(seed=seed), toy)
    finished, left, busy = (store.folder / entry.name for entry in store.entries())
    for folder in (left, busy):
        (folder / MANIFEST).unlink()
    with locked(busy):
        assert [entry.name for entry in store.prune()] == [left.name]
        with pytest.raises(CheckpointError, match="is being made by pid"):
            store.remove(busy.name)
    assert [entry.name for entry in store.entries()] == [finished.name, busy.name]
    entry = store.entries()[0]
    assert entry.finished and entry.settings == {"rate": 0.1} and entry.bytes > 100
    assert len(store.prune(lambda entry: False)) == 2 and store.entries() == []
    with pytest.raises(CheckpointError, match="holds no artefact"):
        store.remove("../run")


def test_foreign_names_in_the_store_do_no_harm(toy, store, tmp_path):
    store.get(means(), toy)
    folder = the_folder(store)
    outside = tmp_path / "outside"
    shutil.copytree(folder, outside)
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "notes").mkdir()
    (store.folder / "gone").symlink_to(tmp_path / "nowhere")
    other = f"mean-{means(seed=1).address(toy)}"
    (store.folder / other).symlink_to(outside)
    (folder / "more").symlink_to(outside)
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    assert [entry.name for entry in store.entries()] == [folder.name]
    store.get(dataclasses.replace(means(), make=never), toy)
    store.prune()
    # A folder of the store that is a link, or a file, is neither followed nor written to.
    for change in (lambda: None, lambda: ((store.folder / other).unlink(),
                                          (store.folder / other).write_text("mine"))):
        change()
        with pytest.raises(CheckpointError, match=f"{other} is a link or a file"):
            store.get(means(seed=1), toy)
        with pytest.raises(CheckpointError, match="holds no artefact"):
            store.remove(other)
    assert store.prune(lambda entry: False) and contents(outside)
    assert (store.folder / "notes.txt").exists() and (store.folder / "notes").is_dir()


def test_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DD_JAX_ARTEFACTS", "mine")
    assert ArtefactStore().folder == tmp_path / "mine"
    monkeypatch.delenv("DD_JAX_ARTEFACTS")
    assert ArtefactStore().folder == tmp_path / "runs" / "artefacts"
    assert ArtefactStore("here").folder == tmp_path / "here"
    assert ArtefactStore("here").entries() == [] and not (tmp_path / "here").exists()
