"""Wrong inputs on the command line: one typed line, an exit code, no traceback.

Run as a program (`python -m tests.cli.test_wrong_inputs`) it prints each message and its time.
"""

from __future__ import annotations

import gzip
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

from dd_jax.cli.main import main
from dd_jax.methods import METHODS

FAST = ["--steps", "2", "--width", "4", "--depth", "1", "--batch-size", "4", "--no-evaluate"]


def make_files(folder: pathlib.Path) -> dict[str, str]:
    """Damaged and foreign files, by name."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(12) % 3

    def npz(name, x, y, **more):
        np.savez(folder / name, images=x, labels=y, **more)
        return str(folder / name)

    broken = images.astype(np.float32) / 255
    broken[3, 1, 1, 0] = np.nan
    idx, empty = folder / "idx", folder / "empty"
    idx.mkdir()
    empty.mkdir()
    for part in ("train", "t10k"):
        payload = struct.pack(">IIII", 2051, 12, 8, 8) + images.tobytes()
        packed = gzip.compress(payload)
        (idx / f"{part}-images-idx3-ubyte.gz").write_bytes(packed[: len(packed) // 2])
        (idx / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">II", 2049, 12) + labels.astype(np.uint8).tobytes())
        )
    (folder / "set.pkl").write_bytes(pickle.dumps({"images": images}))
    (folder / "a_file").write_text("not a folder")
    (folder / "broken.py").write_text("1 / 0")
    (folder / "no_method.py").write_text("x = 1")
    (folder / "short.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    return {
        "good": npz("good.npz", images, labels),
        "one_based": npz("one_based.npz", images, labels + 1),
        "float_labels": npz("float_labels.npz", images, labels + 0.5),
        "negative": npz("negative.npz", images, labels - 1),
        "nan": npz("nan.npz", broken, labels),
        "counts": npz("counts.npz", images, labels[:-1]),
        "class_missing": npz("class_missing.npz", images, labels * 2),
        "objects": npz("objects.npz", np.array([{}] * 12, dtype=object), labels),
        "truncated_idx": str(idx),
        "pickle": str(folder / "set.pkl"),
        "a_file": str(folder / "a_file"),
        "broken_method": str(folder / "broken.py"),
        "no_method": str(folder / "no_method.py"),
        "short_set": str(folder / "short.safetensors"),
        "empty": str(empty),
        "work": str(folder / "work"),
    }


def distill(*words, method="dm"):
    return lambda files: ["distill", method, *FAST, "--workdir", files["work"],
                          *(w.format(**files) for w in words)]


def other(*words):
    return lambda files: [w.format(**files) for w in words]


def closed(method, *words):
    return other("distill", method, "--data", "{good}", "--no-evaluate", "--workdir", "{work}",
                 *words)


# name -> (command line, a part of the message)
CASES = {
    "unknown command": (other("distil", "dm"), "did you mean 'distill'"),
    "unknown method": (distill(method="frepoo"), "did you mean 'frepo'"),
    "no method": (other("distill"), "name one of: " + ", ".join(sorted(METHODS))),
    "no method to prepare": (other("prepare"), "name one of: " + ", ".join(sorted(METHODS))),
    "unknown method to prepare": (other("prepare", "mttt"), "did you mean 'mtt'"),
    "experts of another folder": (other("prepare", "mtt", "--experts", "nowhere"),
                                  "nowhere is no folder that can be read"),
    "data of artefacts": (other("prepare", "mtt", "--data", "{nan}"), "NaN"),
    "store of artefacts is a file": (
        other("prepare", "mtt", "--data", "{good}", "--depth", "1", "--artefacts", "{a_file}"),
        "a_file (File exists)"),
    "list of a file": (other("artefacts", "--store", "{a_file}"), "a_file is a file"),
    "prune a file": (other("artefacts", "--store", "{a_file}", "--prune"), "a_file is a file"),
    "unknown option of artefacts": (other("artefacts", "--prun"), "--prune"),
    "no file of a method": (other("distill", "{work}.py"), "there is no file"),
    "file of a broken method": (other("distill", "{broken_method}"), "ZeroDivisionError: division"),
    "file without a method": (other("distill", "{no_method}"), "no_method.py declares no method"),
    "seed too large": (distill("--data", "{good}", "--seed", str(2**70)), "expected one between"),
    "no place for the result": (distill("--json", "{a_file}/a.json"), "no file can be written"),
    "no set to export": (other("export"), "export lacks PATH, a set that this library saved"),
    "more words than options": (other("methods", "all"), "'all' belongs to no option; python -m "
                                "dd_jax methods --help lists the options"),
    "no stages": (distill("--stages", "0"), "stages is 0, expected an integer of at least 1; pass "
                  "--stages 5"),
    "fewer candidates than none": (distill("--representative", "-3"), "representative is -3, "
                                   "expected an integer of at least 0; pass --representative 256"),
    "no experts in there": (other("prepare", "mtt", "--data", "{good}", "--depth", "1",
                                  "--experts", "{empty}"),
                            "holds no complete expert; name a folder that experts were trained"),
    "experts too short": (
        other("distill", "tesla", "--data", "{good}", "--depth", "1", "--expert-epochs", "2"),
        "--max-start 3 and --span 2 need experts of 4 epochs, and these have 2; pass --max-start 1 "
        "or --expert-epochs 4"),
    "no network in the list": (other("evaluate", "{short_set}", "--networks", " ,"),
                               "networks is ' ,', which names none; name some of alexnet, "),
    "no experts there": (distill("--experts", "nowhere", method="mtt"),
                         "nowhere is no folder that can be read"),
    "misspelt option": (distill("--lerning-rate", "1"), "unknown option '--lerning-rate'; did you "
                        "mean '--learning-rate'?"),
    "option of no kind": (distill("--zzz"), "unknown option '--zzz'; python -m dd_jax distill dm "
                                            "--help lists the options"),
    "no value": (distill("--ipc"), "--ipc has no value"),
    "wrong kind of an option": (distill("--seeds=many"), "--seeds is 'many', expected a whole "
                                "number; python -m dd_jax distill dm --help lists"),
    "option of a run alone": (other("prepare", "mtt", "--flipped"), "unknown option"),
    "wrong type": (distill("--momentum", "fast"), "--momentum is 'fast', expected a number; pass "
                   "for example --momentum 0.5"),
    "unknown protocol": (distill("--protocol", "offical"), "did you mean 'official'"),
    "unknown start": (distill("--start", "reall"), "did you mean 'real'"),
    "unknown normaliser": (distill("--normaliser", "zcaa"), "did you mean 'zca'"),
    "unknown augmentation": (distill("--augmentation", "dsaa"), "did you mean 'dsa'"),
    "ipc zero": (distill("--ipc", "0"), "ipc is 0"),
    "ipc above the class size": (
        distill("--data", "{good}", "--ipc", "50"), "expected at least 50"),
    "steps zero": (distill("--steps", "0"), "steps is 0"),
    "negative rate": (distill("--learning-rate", "-1"), "learning_rate is -1"),
    "too deep": (distill("--depth", "99"), "depth is 99, expected at most 5: 28x28 images shrink "
                 "to 1x1 before the pooling of block 6; pass --depth 5"),
    "unknown data": (distill("--data", "fashion_mist"), "fashion_mnist"),
    "data path missing": (distill("--data", "./no/such/folder"), "no/such/folder"),
    "truncated idx.gz": (distill("--data", "{truncated_idx}"), "train-images-idx3-ubyte.gz"),
    "labels from one": (distill("--data", "{one_based}"), "start"),
    "labels not whole": (distill("--data", "{float_labels}"), "float"),
    "labels negative": (distill("--data", "{negative}"), "-1"),
    "NaN pixels": (distill("--data", "{nan}"), "NaN"),
    "label count mismatch": (distill("--data", "{counts}"), "11"),
    "class missing": (distill("--data", "{class_missing}"), "class"),
    "object arrays": (distill("--data", "{objects}"), "object"),
    "workdir is a file": (
        lambda files: ["distill", "dm", *FAST, "--workdir", files["a_file"]], "a_file"),
    "workdir not writable": (
        lambda files: ["distill", "dm", *FAST, "--workdir", "/proc/no/run"], "/proc/no"),
    "pickle instead of a set": (other("evaluate", "{pickle}"), "pickle"),
    "set missing": (other("evaluate", "no.safetensors"), "no.safetensors"),
    "set truncated": (other("show", "{short_set}"), "short.safetensors"),
    "npz instead of a set": (other("export", "{good}", "--to", "npz"), "good.npz"),
    "unknown kernel": (closed("kip", "--kernel", "convnett3"), "unknown kernel"),
    "kernel too deep": (closed("kip", "--kernel", "convnet4"), "8x8"),
    "negative ridge": (closed("kip", "--ridge=-1"), "ridge is -1.0"),
    "labels of a kernel method": (closed("kip", "--labels", "soft"), "label head"),
    "too few real images to solve": (closed("label_solve", "--ipc", "50"), "expected at least"),
    "unknown solver": (closed("rcig", "--solver", "newton"), "unknown solver"),
    "unknown loss": (closed("rfad", "--loss", "plat"), "did you mean 'platt'"),
    "no random networks": (closed("rfad", "--networks", "0"), "networks is 0"),
    "unknown teacher": (closed("krr_st", "--ipc", "1", "--teacher", "resnet"), "teacher"),
    "more images than there are": (closed("krr_st", "--ipc", "50"), "150 images of 9"),
    "unknown distance": (closed("dc", "--depth", "1", "--distance", "l2"), "gradient distance"),
    "warm-up too long": (closed("dcc", "--depth", "1", "--networks", "3"), "longer than the run"),
    "no patches": (closed("idc", "--depth", "1", "--factor", "0"), "factor is 0"),
    "more patches than images": (closed("idc", "--depth", "1", "--ipc", "2"), "expected at least"),
    "mixed too often": (closed("idc", "--depth", "1", "--mix", "2"), "mix is 2.0"),
    "too few candidates": (
        closed("dream", "--depth", "1", "--factor", "1", "--candidates", "3"), "too few"),
    "too few candidates of a plain method": (
        distill("--representative", "3"), "representative is 3, too few for a choice of 4 rows of "
        "each class; pass --representative 16 or more"),
    "flipped twice": (closed("fyi", "--depth", "1", "--flipped"), "flipped already"),
    "no such file of data": (distill("--data", "nofile.npz"), "nofile.npz: no such file"),
    "size of arrays": (distill("--data", "{good}", "--size", "8"), "leave size out"),
    "no size": (distill("--data", "{good}", "--size", "big"), "pass --size 32"),
    "names of other classes": (distill("--data", "{good}", "--class-names", "a,b"), "num_classes"),
    "test share": (distill("--data", "{good}", "--test-share", "2"),
                   "test_share is 2.0, expected a number between 0 and 1; pass for example "
                   "--test-share 0.2"),
    "no steps between checkpoints": (distill("--save-every", "0"), "pass --save-every 100"),
    "no seconds between checkpoints": (distill("--save-seconds", "nan"), "pass --save-seconds 60"),
    "one seed too many": (distill("--seed", str(2**32)), "pass --seed 0"),
    "no rate": (distill("--learning-rate", "-1"), "pass --learning-rate 0.1"),
    "too long a path": (distill("--data", "./" + "x" * 300), "cannot be used (File name too long)"),
    "too long a folder": (lambda files: ["distill", "dm", *FAST, "--data", files["good"],
                                         "--workdir", "x" * 300],
                          "cannot be used (File name too long)"),
    "too long a result": (distill("--json", "x" * 300), "cannot be used (File name too long)"),
    "result in a folder of the system": (distill("--json", "/proc/no/a.json"),
                                         "no file can be written"),
    "too long a set": (other("evaluate", "x" * 300), "cannot be used (File name too long)"),
    "no seeds": (other("evaluate", "{short_set}", "--seeds", "0"), "seeds is 0"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("inputs"))


def last_line(printed: str) -> str:
    """What is said after the run's own lines and warnings."""
    return printed[printed.rstrip("\n").rfind("\n") + 1:]


@pytest.mark.parametrize("name", sorted(CASES))
def test_wrong_input(name, files, capfd):
    build, expected = CASES[name]
    code, printed = main(build(files)), "".join(capfd.readouterr())
    assert code == 2, printed
    assert "Traceback" not in printed and re.match(r"\w+Error: .*\n\Z", last_line(printed)), printed
    assert expected in printed, printed


def test_nothing_is_written_before_it_is_refused(files, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for words in (["--stages", "0"], ["--representative", "-3"]):
        assert main(["distill", "dm", "--data", files["good"], *words]) == 2
        assert capfd.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_right_input_is_not_refused(files, tmp_path, capfd):
    words = distill("--data", "{good}")({**files, "work": str(tmp_path / "run")})
    assert main(words) == 0
    assert "set.safetensors" in capfd.readouterr().out


def test_no_traceback_from_a_real_process(files):
    done = subprocess.run([sys.executable, "-m", "dd_jax", "distill", "frepoo"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("ConfigError: ")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = make_files(pathlib.Path(folder))
        for case, (words, _) in CASES.items():
            begin = time.perf_counter()
            result = subprocess.run([sys.executable, "-m", "dd_jax", *words(made)],
                                    capture_output=True, text=True)
            seconds = time.perf_counter() - begin
            flat = " ".join((result.stderr + result.stdout).split())
            trouble = "TRACEBACK" if "Traceback" in flat else ""
            print(f"{case:26} exit {result.returncode} {seconds:4.1f} s {trouble} {flat[:150]}")
