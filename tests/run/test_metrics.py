"""Metrics files: strict JSON, equal bytes after a resume, tolerant of a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dd_jax.errors import CheckpointError, ConfigError
from dd_jax.run.metrics import MetricsWriter, format_line, read_metrics


def strict(line: str) -> dict:
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(line, parse_constant=refuse)


def write(path, steps, start=None):
    with MetricsWriter(path) as metrics:
        if start is not None:
            metrics.truncate_after(start)
        for step in steps:
            metrics.write(step, {"loss": 1 / step, "accuracy": np.float32(0.1) * step})


def test_lines_are_on_disk_at_once_and_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(1, {"z": jnp.float32(0.5), "a": np.int64(3), "note": "x\ny", "none": None})
        assert read_metrics(path) == [{"step": 1, "a": 3, "none": None, "note": "x\ny", "z": 0.5}]
        metrics.write(2, {"per_class": jnp.asarray([1, 2.5], jnp.bfloat16), "ok": np.bool_(True)})
    assert read_metrics(path)[1] == {"step": 2, "ok": True, "per_class": [1.0, 2.5]}
    assert list(read_metrics(path)[0]) == ["step", "a", "none", "note", "z"]


def test_f55_non_finite_numbers_are_null_and_named():
    entry = strict(format_line(3, {
        "good": 1.0, "nan": float("nan"), "inf": jnp.float32(jnp.inf),
        "minus": np.float64("-inf"), "list": [1.0, float("nan")], "deep": {"x": float("inf")},
        "half": jnp.asarray(jnp.nan, jnp.bfloat16),
    }))
    assert entry["non_finite"] == ["deep", "half", "inf", "list", "minus", "nan"]
    assert entry["good"] == 1.0 and entry["nan"] is None and entry["list"] == [1.0, None]
    assert "non_finite" not in strict(format_line(3, {"good": 1e300}))


@given(st.dictionaries(st.text(max_size=8).filter(lambda n: n not in ("step", "non_finite")),
                       st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.booleans())))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_scalars_give_one_strict_line(values):
    line = format_line(1, values)
    assert "\n" not in line
    entry = strict(line)
    for name, value in values.items():
        if name not in entry.get("non_finite", []):
            assert entry[name] == value  # floats keep every bit


@pytest.mark.parametrize("values", [{"step": 1}, {"non_finite": 1}, {"x": object()}, {"x": 1j}])
def test_bad_metrics_are_config_errors(values):
    with pytest.raises(ConfigError):
        format_line(1, values)


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    write(whole, range(1, 9))
    for size in range(len(whole.read_bytes()) + 1):  # a kill after any byte
        broken.write_bytes(whole.read_bytes()[:size])
        complete = broken.read_bytes().count(b"\n")
        saved = min(complete, 4)
        write(broken, range(saved + 1, 9), start=saved)
        assert broken.read_bytes() == whole.read_bytes()


def test_opening_alone_cuts_a_partial_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
    write(path, [2])
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2]


def test_a_damaged_line_is_dropped_aloud_or_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\nrubbish\n[2]\n{"loss": 3}\n{"step": 4}\n')
    with pytest.raises(CheckpointError, match="line 2 of .*rubbish"):
        read_metrics(path)
    with MetricsWriter(path) as metrics, pytest.warns(UserWarning, match="line [234]") as told:
        metrics.truncate_after(10)
        metrics.write(11, {})
    assert len(told) == 3
    assert [entry["step"] for entry in read_metrics(path)] == [1, 4, 11]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_files_that_cannot_be_used_are_typed_errors(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be used"):
        MetricsWriter(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_metrics(tmp_path / "missing.jsonl")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_a_typed_error(tmp_path):
    metrics = MetricsWriter(tmp_path / "m.jsonl")
    metrics._file.close()
    metrics._file = open("/dev/full", "wb")
    with pytest.raises(CheckpointError, match="No space left"):
        metrics.write(1, {})


def test_f53_f54_hash_seed_time_zone_and_locale_change_nothing(tmp_path):
    code = ("import sys; from dd_jax.run.metrics import MetricsWriter;"
            "from dd_jax.run.leaves import sealed;"
            "names = {'b', 'a', 'loss', 'norm'};"
            "m = MetricsWriter(sys.argv[1]); m.write(1, {n: 1234567.25 for n in names});"
            "x = {'identity': {n: 1 for n in names}};"
            "m.write(2, {'hash': sealed(x)['sha256']})")
    children = []
    for seed in range(4):
        path = tmp_path / f"{seed}.jsonl"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
               "PYTHONHASHSEED": str(seed), "TZ": ["UTC", "Asia/Tokyo"][seed % 2],
               "LC_ALL": ["C", "de_DE.UTF-8"][seed // 2]}
        children.append((path, subprocess.Popen([sys.executable, "-c", code, path], env=env)))
    assert all(child.wait(timeout=60) == 0 for _, child in children)
    assert len({path.read_bytes() for path, _ in children}) == 1


def test_a_line_of_brackets_or_a_link_is_a_typed_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("[" * 3000 + "]" * 3000 + '\n{"step": 1}\n')
    with pytest.raises(CheckpointError, match="line 1 of"):
        read_metrics(path)
    with MetricsWriter(path) as metrics, pytest.warns(UserWarning, match="dropped line 1"):
        metrics.truncate_after(5)
    assert read_metrics(path) == [{"step": 1}]
    target = tmp_path / "precious"
    target.write_text("years of work")
    (tmp_path / "link.jsonl").symlink_to(target)
    with pytest.raises(CheckpointError, match="is a link"):
        MetricsWriter(tmp_path / "link.jsonl")
    (tmp_path / "metrics.jsonl.tmp").symlink_to(target)
    with MetricsWriter(path) as metrics:
        metrics.truncate_after(0)
    assert target.read_text() == "years of work"
