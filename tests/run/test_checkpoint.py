"""Checkpoints: bit-exact, atomic under kill -9, hash-checked, and loyal to one run."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.run import identity as identities
from dd_jax.run import leaves
from dd_jax.run.checkpoint import Checkpoints

# Reads of a damaged array that Orbax gives up on may finish after their event loop has gone.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

IDENTITY = {"method": "dm", "steps": 10, "opt": {"lr": 0.1, "betas": (0.9, 0.99)}}


def state(step: int = 0) -> dict:
    return {
        "images": np.linspace(-1, 1, 48, dtype=np.float32).reshape(3, 4, 4) + step,
        "count": np.array(step, np.int32),
    }


def opened(folder, **changes) -> Checkpoints:
    return Checkpoints(folder, **{"identity": IDENTITY, **changes})


def quiet_restore(checkpoints, like):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return checkpoints.restore(like)


def assert_same(a, b):
    flat_a, flat_b = jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b)
    assert jax.tree_util.tree_structure(a) == jax.tree_util.tree_structure(b)
    for x, y in zip(flat_a, flat_b):
        x, y = np.asarray(x), np.asarray(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in path.rglob("*") if p.is_file())


# --- round trips ---------------------------------------------------------------------------------


def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path):
    odd_bits = np.array([0x7FC00001, 0xFFC00003, 0x80000000, 0x00000001], np.uint32)
    tree = {
        "f32": odd_bits.view(np.float32),
        "negative zeros": np.full(5, -0.0, np.float32),
        "bf16": jnp.asarray([1.5, -0.0, jnp.nan], jnp.bfloat16),
        "ints": (np.array([-(2**31), 7], np.int32), np.array([2**32 - 1], np.uint32)),
        "wide": [np.array([2**60]), np.array([1 / 3])],
        "u8": np.arange(256, dtype=np.uint8),
        "bool": np.array([True, False]),
        "0-d": [np.array(3, np.int32), jnp.asarray(2.5, jnp.bfloat16), np.array(True)],
        "empty": [np.zeros((0, 3), np.float32), jnp.zeros((2, 0), jnp.bfloat16)],
        "nothing": None,
        "strided": np.arange(12, dtype=np.float32).reshape(3, 4).T[::2],
        "../a/b\n": np.ones(1, np.float32),
        "numbers": (3, 0.1, True),
    }
    opened(tmp_path).save(7, tree)
    step, back = opened(tmp_path).restore(tree)
    assert step == 7
    assert_same(tree, back)
    assert isinstance(back["bf16"], jax.Array) and isinstance(back["u8"], np.ndarray)
    assert [type(x) for x in back["numbers"]] == [int, float, bool]


def test_an_abstract_like_gives_jax_arrays_that_do_not_retrace(tmp_path):
    traced = []

    @jax.jit
    def step(s):
        traced.append(1)
        return jax.tree_util.tree_map(lambda x: x + 1, s)

    live = step({"x": jnp.arange(3.0), "n": jnp.int32(0)})
    live = step(live)
    opened(tmp_path).save(1, live)
    like = jax.eval_shape(lambda: live)
    _, back = opened(tmp_path).restore(like)
    assert_same(live, back)
    before = len(traced)
    assert_same(step(live), step(back))
    assert len(traced) == before


@pytest.mark.parametrize("tree", [{}, {"e": np.zeros((0,), np.int32)}, np.float32(2.0)])
def test_trees_without_stored_arrays_or_without_a_container(tmp_path, tree):
    opened(tmp_path).save(0, tree)
    step, back = opened(tmp_path).restore(tree)
    assert step == 0
    assert_same(tree, back)


def test_big_endian_input_is_stored_natively(tmp_path):
    opened(tmp_path).save(1, {"x": np.array([1.5, 2], ">f4")})
    _, back = opened(tmp_path).restore({"x": np.zeros(2, "f4")})
    np.testing.assert_array_equal(back["x"], [1.5, 2])


def test_keeps_the_last_steps_and_gives_the_newest(tmp_path):
    checkpoints = opened(tmp_path)
    assert checkpoints.restore(state()) is None and checkpoints.steps() == []
    for step in (1, 2, 3, 12):
        checkpoints.save(step, state(step))
    assert checkpoints.steps() == [3, 12]
    step, back = opened(tmp_path).restore(state())
    assert step == 12
    assert_same(state(12), back)


def test_saving_a_step_again_is_refused_and_leaves_it(tmp_path):
    checkpoints = opened(tmp_path, keep=1)
    checkpoints.save(5, state(1))
    with pytest.raises(CheckpointError, match="already holds step 5, not earlier than step 5"):
        checkpoints.save(5, state(2))
    _, back = opened(tmp_path).restore(state())
    assert_same(state(1), back)
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000005"]


def test_old_steps_go_only_after_the_new_one_was_read_back(tmp_path, monkeypatch):
    checkpoints = opened(tmp_path, keep=1)
    checkpoints.save(5, state(1))
    seen, read = [], leaves.read_arrays
    monkeypatch.setattr(leaves, "read_arrays",
                        lambda *a: (seen.append(checkpoints.steps()), read(*a))[1])
    checkpoints.save(6, state(2))
    assert seen == [[5, 6]] and checkpoints.steps() == [6]


def test_leaves_stand_under_their_tree_paths(tmp_path):
    opened(tmp_path).save(1, {"params": [np.ones(2, np.float32)], "n": np.int32(1)})
    stored = (tmp_path / "step_00000001" / "state" / "_METADATA").read_text()
    assert "['params'][0]" in stored and "['n']" in stored and "leaf_0" not in stored


def test_import_and_construction_do_not_load_orbax(tmp_path):
    code = ("import sys; import dd_jax.run.checkpoint as c;"
            f"c.Checkpoints({str(tmp_path)!r}, identity=dict()).steps();"
            "sys.exit('orbax.checkpoint' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], env=child_environment()).returncode == 0


# --- wrong use -----------------------------------------------------------------------------------


def test_random_keys_and_objects_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"\['k'\].*random key"):
        opened(tmp_path).save(1, {"k": jax.random.key(0)})
    with pytest.raises(CheckpointError, match=r"\['t'\].*expected an array of numbers"):
        opened(tmp_path).save(1, {"t": "text"})
    with pytest.raises(CheckpointError, match="step is -1"):
        opened(tmp_path).save(-1, state())
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "like, words",
    [
        ({**state(), "images": np.zeros((3, 4, 5), np.float32)},
         r"\['images'\] float32\[3, 4, 4\], expected \['images'\] float32\[3, 4, 5\]"),
        ({**state(), "count": np.array(0, np.uint32)}, r"\['count'\] int32\[\], .* uint32\[\]"),
        ({"images": state()["images"]}, r"found \['count'\] int32\[\], expected \['images'\]"),
        ({**state(), "zoo": np.zeros(1)}, r"no further leaf, expected \['zoo'\] float64\[1\]"),
    ],
)
def test_another_tree_is_refused_by_its_first_differing_leaf(tmp_path, like, words):
    opened(tmp_path).save(1, state())
    with pytest.raises(CheckpointError, match=words):
        opened(tmp_path).restore(like)


def test_keep_and_identity_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="keep is 0"):
        opened(tmp_path, keep=0)
    with pytest.raises(ConfigError, match=r"identity\.opt\.f is a function"):
        opened(tmp_path, identity={"opt": {"f": lambda: 0}})


def changed(name, value):
    fresh = json.loads(json.dumps(IDENTITY))
    *parents, last = name.split(".")
    inner = fresh
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return fresh


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("method", "dc", "method: 'dm' in the folder, 'dc' now"),
        ("opt.lr", 0.2, "opt.lr: 0.1 in the folder, 0.2 now"),
        ("opt.betas", [0.9, 0.999], r"opt.betas: \[0.9, 0.99\] in"),
        ("opt.new", 1, r"opt.new: \(absent\) in the folder, 1 now"),
        ("opt", {}, r"opt.lr: 0.1 in the folder, \(absent\) now"),
    ],
)
def test_f10_another_identity_is_refused_with_a_diff(tmp_path, name, value, words):
    opened(tmp_path).save(1, state())
    other = opened(tmp_path, identity=changed(name, value))
    with pytest.raises(CheckpointError, match=words):
        other.restore(state())
    with pytest.raises(CheckpointError, match=words):
        other.save(2, state())
    assert opened(tmp_path).steps() == [1]


def test_a_fresh_run_does_not_write_behind_later_steps(tmp_path):
    opened(tmp_path).save(50, state(50))
    with pytest.raises(CheckpointError, match="already holds step 50, not earlier than step 5"):
        opened(tmp_path).save(5, state(5))
    assert opened(tmp_path).restore(state())[0] == 50


# --- damage --------------------------------------------------------------------------------------


def two_steps(folder) -> pathlib.Path:
    checkpoints = opened(folder)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    return folder / "step_00000002"


def test_f7_flipped_bits_never_pass(tmp_path):
    newest = two_steps(tmp_path)
    draw = random.Random(0)
    files = [f for f in files_of(newest) if f.stat().st_size]
    used = set()
    for i in range(60):
        file = files[i % len(files)]
        good = file.read_bytes()
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        file.write_bytes(bad)
        try:
            step, back = quiet_restore(opened(tmp_path), state())
            assert_same(state(step), back)
            used.add(step)
        except CheckpointError as error:  # never the identity, the tree or the version
            pytest.fail(f"a flipped bit in {file.name} was taken for a wrong run: {error}")
        finally:
            file.write_bytes(good)
    assert 1 in used  # some flips did hit data


@pytest.mark.parametrize("where", [0, 1, 0.5, -1])
def test_f7_truncation_falls_back_and_says_so(tmp_path, where):
    newest = two_steps(tmp_path)
    data = max(files_of(newest / "state"), key=lambda f: f.stat().st_size)
    size = data.stat().st_size
    keep = int(size * where) if isinstance(where, float) else where % size
    os.truncate(data, keep)
    checkpoints = opened(tmp_path)
    with pytest.warns(UserWarning, match="skipped the checkpoint of step 2"):
        step, back = checkpoints.restore(state())
    assert step == 1
    assert_same(state(1), back)
    assert [s for s, _ in checkpoints.skipped] == [2] and checkpoints.skipped[0][1]


def test_f7_a_leaf_that_reads_well_but_is_another_is_named(tmp_path):
    newest = two_steps(tmp_path)
    manifest = leaves.read_manifest(newest)
    manifest["leaves"][1][3] = "0" * 64
    rewrite(newest, leaves.sealed(manifest))
    checkpoints = opened(tmp_path)
    assert quiet_restore(checkpoints, state())[0] == 1
    assert "['images'] does not match its hash" in checkpoints.skipped[0][1]


def rewrite(step_folder, manifest):
    (step_folder / "manifest" / "metadata").write_text(
        manifest if isinstance(manifest, str) else json.dumps(manifest))


DEEP = '{"a":' * 3000 + "1" + "}" * 3000


@pytest.mark.parametrize("text", ["", '{"format": 1, "st', "[]", "{}", '{"sha256": 3}', DEEP,
                                  '{"step": 1' + "0" * 5000 + "}", '{"step": 1e999}'])
def test_f8_a_broken_manifest_is_skipped(tmp_path, text):
    newest = two_steps(tmp_path)
    rewrite(newest, text)
    checkpoints = opened(tmp_path)
    assert quiet_restore(checkpoints, state())[0] == 1
    assert checkpoints.skipped[0][0] == 2


def test_f8_a_missing_manifest_is_skipped_and_a_changed_one_too(tmp_path):
    newest = two_steps(tmp_path)
    manifest = leaves.read_manifest(newest)
    rewrite(newest, {**manifest, "step": 3})  # its own hash no longer fits
    assert quiet_restore(opened(tmp_path), state())[0] == 1
    for file in files_of(newest / "manifest"):
        file.unlink()
    (newest / "manifest").rmdir()
    checkpoints = opened(tmp_path)
    assert quiet_restore(checkpoints, state())[0] == 1
    assert "manifest is missing" in checkpoints.skipped[0][1]


def test_f8_a_newer_format_is_refused_with_a_hint(tmp_path):
    newest = two_steps(tmp_path)
    manifest = {**leaves.read_manifest(newest), "format": leaves.FORMAT + 1}
    rewrite(newest, leaves.sealed(manifest))
    with pytest.raises(CheckpointError, match=f"format {leaves.FORMAT + 1}.*upgrade dd_jax"):
        opened(tmp_path).restore(state())


def test_f9_disk_wins_over_what_was_listed(tmp_path):
    checkpoints = opened(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    assert checkpoints.steps() == [1, 2] and checkpoints.restore(state())[0] == 2
    for file in files_of(tmp_path / "step_00000002" / "state"):
        file.unlink()
    assert quiet_restore(checkpoints, state())[0] == 1
    checkpoints.save(2, state(7))  # goes on, and the damaged folder is set aside, not mixed in
    step, back = opened(tmp_path).restore(state())
    assert step == 2
    assert_same(state(7), back)
    assert (tmp_path / "step_00000002.damaged-0").is_dir()


def test_all_damaged_is_said_and_starts_anew(tmp_path):
    newest = two_steps(tmp_path)
    rewrite(newest, "")
    rewrite(tmp_path / "step_00000001", "")
    checkpoints = opened(tmp_path)
    with pytest.warns(UserWarning) as told:
        assert checkpoints.restore(state()) is None
    assert "none of the 2 checkpoints" in str(told[-1].message)
    checkpoints.save(1, state(4))
    assert opened(tmp_path).steps() == [1]


@pytest.mark.parametrize("name,other", [("jax", "9.9"), ("devices", "4 x cpu")])
def test_f11_other_versions_and_devices_are_told(name, other, tmp_path, monkeypatch):
    opened(tmp_path).save(1, state())
    now = identities.conditions()
    assert set(now) >= {"dd_jax", "jax", "jaxlib", "numpy", "python", "devices"}
    monkeypatch.setattr(identities, "conditions", lambda: {**now, name: other})
    with pytest.warns(UserWarning, match=f"may differ in its last bits: {name} .* -> {other}"):
        assert opened(tmp_path).restore(state())[0] == 1


@pytest.mark.parametrize("switch,value", [
    ("jax_enable_x64", True), ("jax_threefry_partitionable", False),
    ("jax_default_matmul_precision", "highest"), ("jax_default_prng_impl", "rbg"),
])
def test_other_switches_of_jax_are_refused_by_name(switch, value, tmp_path):
    opened(tmp_path).save(1, state())
    before = getattr(jax.config, switch)
    jax.config.update(switch, value)
    try:
        other = opened(tmp_path)
        for use in (lambda: other.restore(state()), other.check_owner):
            with pytest.raises(CheckpointError, match=f"switches.{switch}: .* in the folder, .*"):
                use()
    finally:
        jax.config.update(switch, before)
    assert opened(tmp_path).restore(state())[0] == 1


def test_two_leaves_with_one_path_are_refused(tmp_path):
    @jax.tree_util.register_pytree_with_keys_class
    class Twins:
        def tree_flatten_with_keys(self):
            return [(jax.tree_util.DictKey("x"), np.ones(1))] * 2, None

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls()

    with pytest.raises(CheckpointError, match="two leaves of the state have the same path"):
        opened(tmp_path).save(1, Twins())


# --- full disks ----------------------------------------------------------------------------------


def test_f5_a_write_that_fails_part_way_leaves_the_old_checkpoints(tmp_path):
    import resource

    checkpoints = opened(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    noise = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"step 3 .* needs about 800000 bytes, \d+ bytes"):
            checkpoints.save(3, {"noise": noise})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    step, back = checkpoints.restore(state())
    assert step == 2 and checkpoints.steps() == [1, 2]
    assert_same(state(2), back)
    checkpoints.save(3, state(3))  # and the run can go on
    assert checkpoints.steps() == [2, 3] and not list(tmp_path.glob("*tmp*"))


@pytest.mark.parametrize("where", ["write", "flush", "read_arrays"])
def test_f5_no_space_left_is_explained_wherever_it_strikes(tmp_path, monkeypatch, where):
    checkpoints = opened(tmp_path)
    checkpoints.save(1, state(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(leaves, where, full)
        with pytest.raises(CheckpointError, match="196 bytes.*No space left.*free some space"):
            checkpoints.save(2, state(2))
    assert 1 in checkpoints.steps()
    assert quiet_restore(checkpoints, state())[0] in (1, 2)


def test_running_out_of_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    two_steps(tmp_path)

    def starved(*_):
        raise MemoryError

    monkeypatch.setattr(leaves, "read_arrays", starved)
    with pytest.raises(MemoryError):
        opened(tmp_path).restore(state())


# --- kill -9 -------------------------------------------------------------------------------------

# Imports once and forks: what is killed is a process of its own all the same.
NURSERY = textwrap.dedent("""
    import os, signal, sys
    import numpy as np
    from dd_jax.run.checkpoint import Checkpoints
    def saves(folder, mode, at):
        armed, events = False, 0
        def hook(event, args):
            nonlocal events
            if not armed:
                return
            if mode == "rmtree" and event == "shutil.rmtree":
                os.kill(os.getpid(), signal.SIGKILL)
            if mode == "remove" and event == "os.remove" and args[1] != -1:  # within rmtree
                events += 1
                if events > at:
                    os.kill(os.getpid(), signal.SIGKILL)
            if mode == "event" and event in ("open", "os.mkdir", "os.rename"):
                events += 1
                if events >= at:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        checkpoints = Checkpoints(folder, identity={"run": 1})
        told = open(folder + ".told", "w")
        for step in range(1, 10_000):
            armed = step == 3
            checkpoints.save(step, {"x": np.full(40_000, step, np.float32), "n": np.int32(step)})
            print(step, file=told, flush=True)
    for line in sys.stdin:
        folder, mode, at = line.split("\\t")
        child = os.fork()
        if not child:
            saves(folder, mode, int(at))
            os._exit(1)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
""")


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def nursery() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", NURSERY], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, env=child_environment())


def check_after_kill(folder, finished: int):
    like = {"x": np.zeros(40_000, np.float32), "n": np.int32(0)}
    checkpoints = Checkpoints(folder, identity={"run": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a killed save leaves nothing that needs skipping
        step, back = checkpoints.restore(like)
    assert finished <= step <= finished + 1
    assert back["n"] == step and (back["x"] == step).all()
    (folder / "step_00000009.orbax-checkpoint-tmp").mkdir(exist_ok=True)  # perhaps of the kill
    checkpoints.save(step + 1, back)
    assert not list(folder.glob("*tmp*")) and checkpoints.steps()[-1] == step + 1
    return step


def test_f1_f2_kill_at_chosen_and_random_moments(tmp_path):
    chosen = [("event", n) for n in (1, 6, 11, 16)] + [("rmtree", 0), ("remove", 3)]
    draw = random.Random(1)
    with nursery() as children:
        for mode, at in [*chosen, *(("never", i) for i in range(3))]:
            folder = tmp_path / f"{mode}{at}"
            children.stdin.write(f"{folder}\t{mode}\t{at}\n")
            children.stdin.flush()
            child = int(children.stdout.readline())
            if mode == "never":
                limit = time.monotonic() + 60
                while not (folder / "step_00000001").exists() and time.monotonic() < limit:
                    time.sleep(0.01)
                time.sleep(draw.uniform(0.0, 0.3))
                os.kill(child, signal.SIGKILL)
            assert int(children.stdout.readline()) == -signal.SIGKILL
            told = folder.with_name(f"{folder.name}.told").read_text().split()
            finished = int(told[-1]) if told else 0
            step = check_after_kill(folder, finished)
            if mode in ("rmtree", "remove"):
                assert step == 3  # renamed, not yet cleaned up: the newest is used
            elif mode == "event":
                assert finished == 2
        children.stdin.close()
