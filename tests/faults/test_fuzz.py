"""Two thousand spoilt files, others every day; and that the fuzzer sees what it looks for."""

from __future__ import annotations

import os
import random
import sys
import time

import pytest

from dd_jax.errors import DataError
from tests.faults import fuzz, mutate, readers

CASES = 2000

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")


def test_spoilt_files_end_in_their_content_or_in_a_typed_error(tmp_path, capsys):
    seed = fuzz.today()
    with capsys.disabled():
        print(f"fuzz: seed {seed}, {CASES} files", file=sys.stderr)
    found = fuzz.run(CASES, seed, tmp_path)
    assert not found, "python -m tests.faults.fuzz 1 ...\n" + "\n".join(found)


@pytest.mark.parametrize("name", readers.JSON_FILES)
def test_a_file_that_is_gone_ends_well(name, tmp_path):
    """As one case in two hundred of the fuzzer's has it."""
    read = readers.JSON_FILES[name][3]
    (tmp_path / "a").write_bytes(b"123")
    assert fuzz.problem_of(lambda: read(tmp_path)) == ""


def _raise(error):
    raise error


@pytest.mark.parametrize("read, problem", [
    (lambda: None, ""),
    (lambda: _raise(DataError("x" * 10**5)), ""),
    (lambda: _raise(KeyError("x")), "KeyError"),
    (lambda: _raise(MemoryError()), "MemoryError"),
    (lambda: _raise(RecursionError("deep")), "RecursionError: deep"),
    (lambda: sys.audit("subprocess.Popen", "gs", ["gs"], None, None), "started subprocess.Popen"),
    (lambda: time.sleep(5), "more than 0.2 s"),
], ids=range(7))
def test_the_fuzzer_sees_what_it_looks_for(monkeypatch, read, problem):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    found = fuzz.problem_of(read)
    assert found.startswith(problem) and bool(found) == bool(problem)


def test_memory_is_seen(monkeypatch):
    monkeypatch.setattr(fuzz, "_peak", iter([100.0, 700.0]).__next__)
    assert fuzz.problem_of(lambda: None) == "600 MB"


def test_a_case_is_the_same_again():
    def spoilt():
        rng = random.Random("7/3")
        return (mutate.spoilt_bytes(rng, bytes(range(200))),
                mutate.spoilt_json(rng, {"a": [1, {"b": "x"}], "c": 2.5}))

    assert spoilt() == spoilt()
