"""A result of hours is not lost for a number, a place or a full disk; a foreign one is typed."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from dd_jax.errors import ConfigError, DataError, SetFileError
from dd_jax.report.result import check_place, markdown_table, read_result, write_result
from tests.test_results import example


def test_numbers_that_are_not_finite_become_null_and_are_named(tmp_path):
    told = example(full_mean=float("nan"), accuracies=[0.5, np.float32("inf")],
                   settings={"rate": np.float64("-inf"), "kind": object, 3: np.int64(4)})
    path = write_result(tmp_path / "new" / "r.json", told)
    found = json.loads(path.read_text())
    assert found["full_mean"] is None and found["accuracies"] == [0.5, None]
    assert found["settings"]["rate"] is None and found["settings"]["3"] == 4
    assert found["non_finite"] == ["full_mean", "accuracies[1]", "settings.rate"]
    assert "object" in found["settings"]["kind"]
    assert "non_finite" not in json.loads(write_result(path, example()).read_text())
    told = example(accuracy_mean=float("nan"), full_mean=0.0)
    assert "| - |" in markdown_table([read_result(write_result(path, told)), example()])


def test_places_where_no_result_can_be_are_found_before_the_run(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path, tmp_path / "file" / "r.json", tmp_path / "pipe", "/proc/r.json",
                tmp_path / ("x" * 300), "/dev/full"):
        with pytest.raises(ConfigError, match="no file can be written|cannot be used"):
            check_place(bad)
        with pytest.raises(SetFileError):
            write_result(bad, example())
    for good in (tmp_path / "file", tmp_path / "new" / "deep" / "r.json"):
        check_place(good)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize("text", [DEEP, "5", "null", "", "{", '{"a": 1e999}', "[]",
                                  '{"method": ' + "1" * 5000 + "}"], ids=range(8))
def test_what_is_no_result_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DataError, match="r.json (is not a result file|lacks)"):
        read_result(tmp_path / "r.json")
    with pytest.raises(DataError, match="none.json is not a result file"):
        read_result(tmp_path / "none.json")


ODD = {
    "data": [None, 3, ["x"]], "method": [{}, 1], "protocol": [None], "device": [5],
    "ipc": ["x", None, [], True], "steps": ["10", None], "bytes": ["x", None, 10**39],
    "distill_seconds": ["x", [], False], "accuracy_mean": [[], "0.5", {}],
    "accuracy_std": ["x"], "random_mean": [[0.5]], "random_std": [{}], "full_mean": ["x", True],
    "published": [5, "x", [], {}, {"mean": 1}, {"mean": "x", "std": None}, {"mean": 1, "std": []}],
    "published_read_out": [5, {"mean": None, "std": 1}], "read_out_mean": ["x"],
    "read_out_random_mean": [[]], "read_out_random_std": ["x"],
}


@pytest.mark.parametrize("name", ODD)
def test_a_field_of_the_table_is_typed(tmp_path, name):
    good = read_result(write_result(tmp_path / "r.json", example()))
    assert len(markdown_table([good]).splitlines()) == 3
    for value in ODD[name]:
        (tmp_path / "r.json").write_text(json.dumps({**good, name: value}))
        with pytest.raises(DataError, match=f"has the {name}"):
            read_result(tmp_path / "r.json")
