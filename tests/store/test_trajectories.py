"""The store of experts: exact rows, found by index; what cannot be trusted is refused by name."""

from __future__ import annotations

import hashlib
import json
import pathlib
import pickle

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from dd_jax import data as dd_data
from dd_jax import nets
from dd_jax.errors import CheckpointError, ConfigError, NonFiniteError
from dd_jax.store.envelope import differences
from dd_jax.store.trajectories import describe, open_trajectories
from dd_jax.store.trajectory_file import open_expert, read_row, write_expert
from tests.laws import members

NETWORK = nets.mlp(members.SPEC, width=3, depth=2)
P = 64 * 3 + 3 + 3 * 2 + 2
EPOCHS = 4


@pytest.fixture(scope="module")
def described(toy):
    return describe(NETWORK, toy, normaliser=dd_data.standardise(toy), training={"a": 0.3})


def trajectory(seed: int, epochs: int = EPOCHS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(epochs + 1, P)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, described):
    for i in (0, 2, 3):
        write_expert(tmp_path, i, trajectory(i), description=described)
    return tmp_path


def params(network=NETWORK):
    return jax.eval_shape(lambda: network.init(jax.random.key(0)))["params"]


def refused(folder, *pieces, **options):
    with pytest.raises(CheckpointError) as caught:
        open_trajectories(folder, **options)
    for piece in pieces:
        assert piece in str(caught.value)


def test_rows_come_back_exactly_wherever_they_are(folder):
    experts = open_trajectories(folder, like=params(), needed_epochs=EPOCHS, verify="all")
    assert (experts.experts, experts.epochs, experts.parameters) == ((0, 2, 3), EPOCHS, P)
    assert experts.description["architecture"] == "mlp" and len({experts}) == 1
    one = experts.read(1, 4)
    assert one.dtype == np.float32 and one.shape == (P,)
    np.testing.assert_array_equal(one, trajectory(2)[4])
    several = experts.read(np.array([[0, 2], [2, 1]]), np.array([0, 3]))
    assert several.shape == (2, 2, P)
    np.testing.assert_array_equal(several[1, 0], trajectory(3)[0])
    np.testing.assert_array_equal(several[0, 1], trajectory(3)[3])
    np.testing.assert_array_equal(several[1, 1], trajectory(2)[3])


@pytest.mark.parametrize("expert, epoch, pieces", [
    (3, 0, "expert is 3, expected whole numbers in 0..2"),
    (-1, 0, "expert is -1"),
    (0, [0, 5], "epoch is [0, 5], expected whole numbers in 0..4"),
    (0.0, 0, "expert is 0.0"),
    (True, 0, "expert is True"),
    ([0, 1], [0, 1, 2], "shape (2,) and epoch (3,)"),
])
def test_wrong_indices_are_refused(folder, expert, epoch, pieces):
    with pytest.raises(ConfigError) as caught:
        open_trajectories(folder).read(expert, epoch)
    assert pieces in str(caught.value)


def test_a_file_is_plain_safetensors_and_equal_content_gives_equal_bytes(tmp_path, described):
    paths = [write_expert(tmp_path / name, 7, trajectory(7), description=described)
             for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    tensors = safetensors.numpy.load_file(paths[0])
    np.testing.assert_array_equal(tensors["parameters"], trajectory(7))
    assert [p.name for p in paths[0].parent.iterdir()] == ["expert_00007.safetensors"]


def test_bfloat16_halves_the_bytes(tmp_path, described):
    path = write_expert(tmp_path, 0, trajectory(0), description=described, dtype="bfloat16")
    assert path.stat().st_size - open_expert(path).offset == 2 * (EPOCHS + 1) * P
    rounded = trajectory(0).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(open_trajectories(tmp_path, verify="all").read(0, 2), rounded[2])
    write_expert(tmp_path, 1, trajectory(1), description=described)
    refused(tmp_path, "dtype is 'bfloat16' in expert 0, 'float32' in expert 1")
    with pytest.raises(ConfigError, match="unknown dtype 'float16'"):
        write_expert(tmp_path, 2, trajectory(2), description=described, dtype="float16")


def test_a_diverged_expert_is_not_written(tmp_path):
    bad = trajectory(0)
    bad[3, 5] = np.nan
    with pytest.raises(NonFiniteError, match="expert 4 was not finite after epoch 3"):
        write_expert(tmp_path, 4, bad, description={})
    with pytest.raises(ConfigError, match=r"shape \(1, .*expected \[E \+ 1, P\]"):
        write_expert(tmp_path, 4, bad[:1], description={})
    assert not list(tmp_path.iterdir())


def test_f37_a_flipped_byte_is_found_where_it_is_read(folder):
    path = folder / "expert_00002.safetensors"
    file = open_expert(path)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[file.offset + 3 * 4 * P + 1] ^= 1
    path.write_bytes(changed)
    experts = open_trajectories(folder)
    np.testing.assert_array_equal(experts.read(1, [0, 2, 4]), trajectory(2)[[0, 2, 4]])
    for _ in range(2):
        with pytest.raises(CheckpointError, match="expert_00002.*row 3.*delete expert_00002"):
            experts.read([0, 1], 3)
    refused(folder, "row 3 is not what was written", verify="all")
    for place in range(0, file.offset, 7):  # its header
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        refused(folder, str(path), "delete expert_00002.safetensors", "run the same command")


def test_f37_a_file_cut_anywhere_is_named(folder):
    path = folder / "expert_00003.safetensors"
    whole, opened = path.read_bytes(), open_trajectories(folder)
    offset = open_expert(path).offset
    for length in (0, 5, 8, 100, offset - 1, offset, offset + 4 * P, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(folder, str(path), "not a whole file of an expert",
                "truncated" if length > 8 else "not a safetensors file",
                "delete expert_00003.safetensors")
    path.write_bytes(whole + b"\0")
    refused(folder, f"too long: its {len(whole) + 1} bytes are not those")
    path.write_bytes(whole[:offset + 4 * P])  # under an open store
    np.testing.assert_array_equal(opened.read(2, 0), trajectory(3)[0])
    with pytest.raises(CheckpointError, match="cut short in row 2"):
        opened.read(2, 2)


def rewritten(path: pathlib.Path, change) -> None:
    """A file whose header was changed by somebody who also mends its hash."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    record = json.loads(header["__metadata__"]["dd_jax"])
    change(record, header)
    record.pop("sha256")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    record["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    header["__metadata__"]["dd_jax"] = json.dumps(record)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length:])


@pytest.mark.parametrize("change, piece", [
    (lambda r, h: r.update(shape=[2, P]), "not what was written"),
    (lambda r, h: (r.update(shape=[9, P]),
                   h["parameters"].update(shape=[9, P], data_offsets=[0, 36 * P])),
     "truncated"),
    (lambda r, h: r.update(rows=r["rows"][:-1]), "not what was written"),
    (lambda r, h: r.update(shape="many"), "not what was written"),
    (lambda r, h: r.pop("rows"), "not what was written"),
    (lambda r, h: r.update(format_version=2), "format version 2, this release reads 1"),
    (lambda r, h: h.update(more=h["parameters"]), "not a whole file of an expert"),
    (lambda r, h: r.update(format="dd_jax.set"), "expected 'dd_jax.expert'"),
    (lambda r, h: r.update(rows=3), "not what was written"),
    (lambda r, h: r.update(dtype=[]), "not what was written"),
])
def test_headers_that_contradict_themselves_are_refused(folder, change, piece):
    rewritten(folder / "expert_00000.safetensors", change)
    refused(folder, "expert_00000.safetensors", piece)


def test_foreign_files_are_refused_and_nothing_in_them_runs(folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "ran",)

    path = folder / "expert_00000.safetensors"
    safetensors.numpy.save_file({"parameters": trajectory(0)}, path)
    refused(folder, "without a dd_jax card")
    path.write_bytes(pickle.dumps([Payload()] * 50))
    refused(folder, "never unpickles")
    assert not (tmp_path / "ran").exists()


def test_unfinished_files_are_skipped_and_named(folder):
    name = ".expert_00001.safetensors.0123456789ab.tmp"
    (folder / name).write_bytes(b"half")
    (folder / "run.lock").touch()
    with pytest.warns(UserWarning, match="skipped unfinished files.*" + name):
        assert open_trajectories(folder).experts == (0, 2, 3)


def test_f36_an_empty_or_missing_folder(tmp_path):
    refused(tmp_path, "holds no complete expert", "experts out")
    refused(tmp_path / "none", "no folder that can be read")


def test_f36_experts_of_different_kinds_do_not_mix(folder, described):
    other = {**described, "training": {"a": 1.0}}
    write_expert(folder, 5, trajectory(5), description=other)
    refused(folder, "mixes experts of different kinds",
            "training.a is 0.3 in expert 0, 1.0 in expert 5", "a folder of its own")
    write_expert(folder, 5, trajectory(5, epochs=3), description=described)
    refused(folder, "epochs is 4 in expert 0, 3 in expert 5")


def test_f36_another_architecture_is_refused_with_what_is_there(folder):
    wide = params(nets.mlp(members.SPEC, width=5, depth=2))
    refused(folder, f"networks 'mlp' of {P} parameters with head/kernel [3, 2]",
            "the one asked for has 337 with head/kernel [5, 2]", "build the network", like=wide)
    deep = params(nets.mlp(members.SPEC, width=3, depth=3))
    refused(folder, "with hidden1/bias [3]", like=deep)


def test_f36_another_normaliser_is_refused(folder, toy):
    open_trajectories(folder, normaliser=dd_data.standardise(toy))
    refused(folder, "normaliser 'standardise', this run uses 'none'",
            normaliser=dd_data.identity(members.SHAPE))
    fitted = dd_data.standardise(dd_data.from_arrays(np.asarray(toy.images)[:9], np.arange(9) % 2))
    refused(folder, "'standardise' fitted on other images", normaliser=fitted)


def test_f36_more_epochs_than_there_are(folder):
    refused(folder, "have 4 epochs, start + span asks for 6", "lower the latest start by 2",
            "train experts with epochs=6", needed_epochs=6)


def test_the_digest_is_that_of_the_content_wherever_it_is(folder, tmp_path, described):
    digest = open_trajectories(folder).digest
    copy = tmp_path / "copy"
    for i in (3, 0, 2):
        write_expert(copy, i, trajectory(i), description=described)
    assert open_trajectories(copy).digest == digest and len(digest) == 64
    write_expert(copy, 2, trajectory(4), description=described)
    assert open_trajectories(copy).digest != digest


def test_differences_name_what_is_absent():
    assert differences({"a": {"b": [1]}}, {"a": {"b": [2], "c": None}}) == [
        ("a.b", "[1]", "[2]"), ("a.c", "(absent)", "None")]


def test_read_row_alone(folder):
    np.testing.assert_array_equal(read_row(open_expert(folder / "expert_00002.safetensors"), 1),
                                  trajectory(2)[1])
