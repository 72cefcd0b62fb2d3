"""Every reader of files with something whole to read, and a way to spoil it as only a liar would.

A reader is (rng, folder, bases) -> (the file that was spoilt, what reads it); bases are made once.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pathlib
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from dd_jax import data, store
from dd_jax.evaluate import Protocol, baselines, protocol
from dd_jax.report.result import markdown_table, read_result
from dd_jax.run import leaves
from dd_jax.run.checkpoint import Checkpoints
from dd_jax.run.identity import full_identity
from dd_jax.run.lock import RunLock
from dd_jax.run.metrics import MetricsWriter, read_metrics
from dd_jax.run.workdir import open_workdir, seconds_spent
from dd_jax.store import artefacts, container, envelope
from dd_jax.store.trajectories import open_trajectories
from dd_jax.store.trajectory_file import write_expert
from experiments.cross_architecture import read_cells
from tests.faults.mutate import sealed_text, spoilt_bytes, spoilt_json, spoilt_tensors
from tests.store.test_any_shape import free, soft
from tests.store.tiny_sets import tiny
from tests.test_results import example

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RUN = {"method": "dm", "settings": {"rate": 0.1, "sizes": [1, 2]}, "seed": 0}
Case = tuple[pathlib.Path, Callable[[], object]]


class SetBase(NamedTuple):
    """A set's file in parts."""

    raw: bytes
    tensors: dict[str, np.ndarray]
    card: dict[str, Any]
    beside: bytes | None


class Bases(NamedTuple):
    """What is spoilt."""

    sets: list[SetBase]
    stored: list[SetBase]
    experts: list[bytes]
    idx: dict[str, bytes]
    cifar: pathlib.Path
    npz: list[bytes]
    pictures: list[bytes]


def make_bases(folder: pathlib.Path) -> Bases:
    """Everything whole, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"architecture": "mlp", "parameters": [["x", [6]]], "normaliser": {"kind": "none"}}
    for i in range(2):
        write_expert(folder, i, np.full((4, 6), i / 3, np.float32), description=described,
                     dtype=("float32", "bfloat16")[i])
    evaluation = protocol("x", network="mlp", width=4).plain()
    plain = [store.save(folder / f"{kind}.safetensors", tiny(kind, evaluation=evaluation))
             for kind in ("standardise", "zca")]
    made, path = free(evaluation=evaluation), folder / "free.safetensors"
    beside = store.write_label_store(path, soft(), made)
    plain.append(store.save(path, free(evaluation=evaluation, label_store=beside)))
    cifar = folder / "cifar"
    cifar.mkdir(exist_ok=True)
    raw = b"".join(bytes([i]) + bytes([40 * i % 256]) * 3072 for i in range(10))
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (cifar / name).write_bytes(raw)
    return Bases(
        [_base(path) for path in plain],
        [_base(GOLDEN / f"{name}.safetensors") for name in ("set_v2", "before_v2")],
        [(folder / f"expert_{i:05d}.safetensors").read_bytes() for i in range(2)],
        _idx_files(), cifar, _npz_files(), _picture_files())


def _base(path: pathlib.Path) -> SetBase:
    beside = path.with_name(f"{path.stem}.labels.safetensors")
    return SetBase(path.read_bytes(), *container.unpack(path),
                   beside.read_bytes() if beside.exists() else None)


def _idx_files() -> dict[str, bytes]:
    images = np.arange(8 * 16, dtype=np.uint8).reshape(8, 4, 4)
    raw = struct.pack(">BBBB3I", 0, 0, 8, 3, *images.shape) + images.tobytes()
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 8) + bytes([0, 1] * 4)
    return {"images": raw, "labels": labels, "packed images": gzip.compress(raw, mtime=0),
            "packed labels": gzip.compress(labels, mtime=0)}


def _npz_files() -> list[bytes]:
    x, y = np.arange(8 * 12, dtype=np.uint8).reshape(8, 2, 2, 3), np.arange(8) % 2
    made = []
    for write, arrays in ((np.savez, dict(images=x, labels=y)),
                          (np.savez_compressed, dict(x_train=x / 255, y_train=y, x_test=x[:2],
                                                     y_test=y[:2, None]))):
        write(file := io.BytesIO(), **arrays)
        made.append(file.getvalue())
    return made


def _picture_files() -> list[bytes]:
    from PIL import Image

    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    made = []
    for image, kind, options in (
        (grey, "PNG", {}), (grey.convert("RGB"), "PNG", {}), (grey.convert("P"), "PNG", {}),
        (grey.convert("RGBA"), "PNG", {}), (grey.convert("I;16"), "PNG", {}), (grey, "JPEG", {}),
        (grey.convert("RGB"), "BMP", {}), (grey.convert("RGB"), "WEBP", {}), (grey, "TIFF", {}),
        (grey.convert("RGB"), "TIFF", {"compression": "tiff_lzw"}), (grey, "PPM", {}),
        (grey.convert("P"), "GIF", {}), (grey.convert("RGB"), "EPS", {}), (grey, "PDF", {}),
    ):
        image.save(file := io.BytesIO(), kind, **options)
        made.append(file.getvalue())
    return made


def _spoilt_set(rng: random.Random, base: SetBase) -> bytes:
    tensors, card = base.tensors, {k: v for k, v in base.card.items() if k != "card_sha256"}
    if rng.random() < 0.5:
        tensors = spoilt_tensors(rng, tensors)
        card["sha256"] = container.content_hash(tensors)
        card["bytes"] = sum(array.nbytes for name, array in tensors.items()
                            if not name.startswith("normaliser/"))
    text = spoilt_json(rng, card) if rng.random() < 0.7 else container.canonical(card)
    return safetensors.numpy.save(
        tensors, metadata={container.CARD_KEY: sealed_text(text, "card_sha256")})


def _sets(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    base = rng.choice(bases.stored if rng.random() < 0.01 else bases.sets)
    raw = spoilt_bytes(rng, base.raw) if rng.random() < 0.3 else _spoilt_set(rng, base)
    path, look = folder / "a.safetensors", rng.random()
    path.write_bytes(raw)
    if base.beside is not None:
        (folder / "free.labels.safetensors").write_bytes(base.beside)

    def read():
        made = store.load(path)
        store.summary(made)
        _ = made.cost_bytes, made.ipc, made.hard_labels, made.stored_bytes
        if look < 0.03:
            store.as_numpy(made)
        if look > 0.3:
            Protocol.from_plain(made.evaluation)

    return path, read


def _spoilt_rows(rng: random.Random, raw: bytes) -> bytes:
    """A file of rows whose header lies and has the right hash."""
    length = int.from_bytes(raw[:8], "little")
    header, payload = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    record = json.loads(header["__metadata__"][container.CARD_KEY])
    del record["sha256"]
    header["__metadata__"][container.CARD_KEY] = sealed_text(spoilt_json(rng, record), "sha256")
    text = json.dumps(header) if rng.random() < 0.8 else spoilt_json(rng, header)
    payload = payload if rng.random() < 0.8 else spoilt_bytes(rng, payload)
    return len(text).to_bytes(8, "little") + text.encode() + payload


def _spoilt(rng: random.Random, raw: bytes, others: list[bytes]) -> bytes:
    return spoilt_bytes(rng, raw, others) if rng.random() < 0.4 else _spoilt_rows(rng, raw)


def _label_stores(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    base = next(base for base in bases.sets if base.beside is not None)
    path = folder / "free.labels.safetensors"
    path.write_bytes(_spoilt(rng, base.beside, bases.experts))
    (folder / "a.safetensors").write_bytes(base.raw)

    def read():
        made = store.load(folder / "a.safetensors")
        store.read_targets(made.label_store, 3)

    return path, read


def _experts(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    which, path = rng.randrange(2), folder / "expert_00000.safetensors"
    path.write_bytes(_spoilt(rng, bases.experts[which], bases.experts))
    if rng.random() < 0.5:
        (folder / "expert_00001.safetensors").write_bytes(bases.experts[which])
    verify = rng.choice(("all", "header"))

    def read():
        opened = open_trajectories(folder, verify=verify)
        opened.read(0, [0, opened.epochs])
        assert len(opened.digest) == 64

    return path, read


def _idx(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    names = {"train-images": "images", "train-labels": "labels", "t10k-images": "packed images",
             "t10k-labels": "packed labels"}
    for name, kind in names.items():
        (folder / f"{name}-idx").write_bytes(bases.idx[kind])
    name = rng.choice(sorted(names))
    raw, path = bases.idx[names[name]], folder / f"{name}-idx"
    if rng.random() < 0.5:
        raw = spoilt_bytes(rng, raw, list(bases.idx.values()))
    else:
        sides = [rng.choice((0, 1, 2, 8, 255, 2**16, 2**31, 2**32 - 1))
                 for _ in range(rng.randrange(5))]
        raw = struct.pack(f">BBBB{len(sides)}I", 0, 0, rng.choice((8, 9, 11, 12, 13, 14, 0)),
                          rng.choice((len(sides), 255)), *sides) + bytes(rng.choice((0, 8, 128)))
        raw = gzip.compress(raw, mtime=0) if rng.random() < 0.3 else raw
    path.write_bytes(raw)
    return path, rng.choice((lambda: data.read_idx(path), lambda: data.from_path(folder)))


def _cifar(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    for file in bases.cifar.iterdir():
        (folder / file.name).symlink_to(file)
    path = folder / rng.choice(sorted(file.name for file in bases.cifar.iterdir()))
    path.unlink()
    path.write_bytes(spoilt_bytes(rng, (bases.cifar / path.name).read_bytes()))
    return path, lambda: data.read_cifar10(folder, device=False)


def _npy(rng: random.Random) -> bytes:
    kind = rng.choice(("|u1", "<f8", ">i4", "|O", "<U3", "|V8", "<M8[s]", "<c16", "|b1", "<f2"))
    sides = rng.choice(("()", "(0,)", "(-1,)", "(2,)", "(8, 2, 2)", "(0, 2, 2)", "(2**40,)",
                        "(1099511627776,)", "(10000000000000000000000000000000, 2)",
                        "(8,)", "8", "(True, 2)", "((" * 150 + "))" * 150, "(1e3,)"))
    text = f"{{'descr': {kind!r}, 'fortran_order': {rng.choice(('True', 'False', '3'))}, "
    text += f"'shape': {sides}, }}"
    text = text.encode() + b" " * rng.randrange(64) + b"\n"
    version = rng.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00"))
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + bytes(rng.choice((0, 2, 8, 32, 64)))


def _npz(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    path = folder / "a.npz"
    if rng.random() < 0.5:
        path.write_bytes(spoilt_bytes(rng, rng.choice(bases.npz), bases.npz))
    else:
        how = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
        with zipfile.ZipFile(path, "w", how) as archive:
            for name in rng.sample(("images.npy", "labels.npy", "x.npy", "y.npy", "../a.npy", "a",
                                    "x_train.npy", "y_train.npy", "\x1b.npy"), rng.randint(1, 4)):
                archive.writestr(name, _npy(rng))
    return path, rng.choice((lambda: data.read_npz(path),
                             lambda: data.from_npz(path, device=False)))


def _pictures(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    whole = rng.choice(bases.pictures[:2])
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(whole)
    path = folder / "a" / f"2{rng.choice(sorted(data.folder.SUFFIXES))}"
    raw = rng.choice(bases.pictures)
    path.write_bytes(raw if rng.random() < 0.1 else spoilt_bytes(rng, raw, bases.pictures))
    size = rng.choice((None, 8, (3, 5)))
    return path, lambda: data.from_folder(folder, size=size, device=False)


def _opened(folder: pathlib.Path) -> None:
    with open_workdir(folder, RUN) as work:
        work.note_time(1)


def _locked(folder: pathlib.Path) -> None:
    with RunLock(folder):
        pass


def _metrics(folder: pathlib.Path) -> None:
    with MetricsWriter(folder / "metrics.jsonl") as writer:
        writer.truncate_after(3)
        writer.write(4, {"loss": 1.0})
    read_metrics(folder / "metrics.jsonl")


def _in_protocol(folder: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # which is left to who asks for a file
        Protocol.from_plain(envelope.read_json_file(folder / "protocol.json", "it", fix=""))


def _seal_checkpoint(value: Any) -> str:
    return leaves.sealed(value)["sha256"]


STEP = "checkpoints/step_00000001/manifest/metadata"
_READ_OUT = {"kernel": "fc1", "kind": "ntk", "ridge": 1e-6, "mode": "trace_mean"}
# File -> (a whole one, the field of its hash, how that is made, what reads it).
JSON_FILES: dict[str, tuple[Callable[[], dict], str, Any, Callable[[pathlib.Path], object]]] = {
    "seconds.json": (lambda: {"step": 3, "seconds": 5.5}, "", None, seconds_spent),
    "run.json": (lambda: {"identity": full_identity(RUN), "versions": {}}, "", None, _opened),
    "run.owner": (lambda: {"pid": 1, "host": "x"}, "", None, _locked),
    "metrics.jsonl": (lambda: {"step": 1, "loss": 0.5, "list": [1, None]}, "", None, _metrics),
    "result.json": (example, "", None,
                    lambda f: markdown_table([read_result(f / "result.json")])),
    "cells.json": (lambda: {"cells": [dict(
        protocol=protocol("x").plain(), set_sha256="a", test_sha256="b", seeds=1, seed=1,
        accuracies=[0.5], accuracy_mean=0.5, accuracy_std=0.1)]}, "", None,
                   lambda f: read_cells(f / "cells.json")),
    "protocol.json": (lambda: protocol("x").plain() | {"read_out": _READ_OUT}, "", None,
                      _in_protocol),
    "artefact.json": (lambda: {"identity": {"settings": {"rate": 0.1}}, "files": {"a": 3},
                               "versions": {}}, "sha256", None, artefacts._check_files),
    "accuracies.json": (lambda: {"accuracies": [0.5, 0.6], "seconds": 3.5}, "sha256", None,
                        baselines._open),
    STEP: (lambda: {"format": 2, "step": 1, "identity": full_identity(RUN), "written_with": {},
                    "leaves": [["x", [3], "float32", "0"]]}, "sha256", _seal_checkpoint,
           lambda f: Checkpoints(f / "checkpoints", identity=RUN).check_owner()),
}


def _json(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    name = rng.choice(sorted(JSON_FILES))
    whole, field, seal, read = JSON_FILES[name]
    value = whole()
    if rng.random() < 0.75:
        text = spoilt_json(rng, value)
        raw = (sealed_text(text, field, seal) if field else text).encode("utf-8", "replace")
    else:
        raw = spoilt_bytes(rng, json.dumps(value).encode())
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw + b"\n")
    (folder / "a").write_bytes(b"123")
    return path, lambda: read(folder)


def _listed(rng: random.Random, folder: pathlib.Path, bases: Bases) -> Case:
    """Artefacts of a store, of which one is spoilt."""
    inner = folder / ("mean-" + "0" * 24)
    inner.mkdir()
    text = spoilt_json(rng, {"identity": {"settings": {"rate": 0.1}}, "files": {"a": 3}})
    (inner / artefacts.MANIFEST).write_text(sealed_text(text, "sha256"))
    return inner / artefacts.MANIFEST, artefacts.ArtefactStore(folder).entries


READERS = {"sets": _sets, "labels": _label_stores, "experts": _experts, "idx": _idx,
           "cifar": _cifar, "npz": _npz, "pictures": _pictures, "json": _json, "listed": _listed}
WEIGHTS = {"sets": 5, "labels": 2, "experts": 2, "idx": 2, "cifar": 1, "npz": 2, "pictures": 2,
           "json": 5, "listed": 1}


def cleared(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a case, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
