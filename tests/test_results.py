"""Quoted figures: every result file is whole, and the table is made of them and nothing else."""

from __future__ import annotations

import json

import pytest

from dd_jax.errors import DataError
from dd_jax.report.result import FIELDS, build_result, markdown_table, percent, read_result
from experiments import table

RESULTS = table.RESULTS
FILES = table.files()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_result_file_is_whole(path):
    result = read_result(path)
    assert path.parent.name == result["data"]
    assert path.stem.startswith(f"{result['method']}_ipc{result['ipc']}_")
    for name in ("accuracy_mean", "random_mean"):
        assert 0 < result[name] < 1, "accuracies are fractions"
    assert result["networks"] >= 1 and result["bytes"] > 0 and result["steps"] > 0
    if result["published"]:
        assert set(result["published"]) == {"mean", "std", "source"}


def test_the_table_is_up_to_date():
    made = table.HEADER + markdown_table([read_result(path) for path in FILES])
    assert (RESULTS.parent / "RESULTS.md").read_text() == made


def example(**changes):
    values = {name: 1 for name in FIELDS}
    values |= dict(method="m", data="d", ipc=1, protocol="cpu", accuracy_mean=0.7,
                   accuracy_std=0.01,
                   random_mean=0.5, random_std=0.02, full_mean=0.9, published=None, device="cpu",
                   distill_seconds=12.3)
    return values | changes


def test_rows_show_percent_ratio_and_published():
    published = {"mean": 75.6, "std": 0.3, "source": "paper"}
    text = markdown_table([example(published=published), example(ipc=10, full_mean=None)])
    first, second = text.splitlines()[2:]
    assert "| 70.0 ± 1.0 | 50.0 ± 2.0 | 90.0 | 0.78 | 75.6 ± 0.3 | 12 s |" in first
    assert "| - | - | - |" in second


def test_rows_show_what_the_test_took():
    told = example(evaluate_seconds=59.6, test_steps=20_000, load={"before": 0.14, "most": 2.31})
    titles, _, row, older = markdown_table([told, example(ipc=10)]).splitlines()
    assert "| distilled in | steps | tested in | test steps | load |" in titles
    assert "| 12 s | 1 | 60 s | 20,000 | 0.1, 2.3 |" in row
    assert "| 12 s | 1 | 1 s | - | - |" in older


def test_scans_are_no_results(tmp_path):
    for name in ("toy/a.json", "tuning/b.json", "toy/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert table.files(tmp_path) == [tmp_path / "toy" / "a.json"]


def test_missing_fields_are_named(tmp_path):
    with pytest.raises(DataError, match="random_mean"):
        build_result(method="m")
    path = tmp_path / "r.json"
    path.write_text(json.dumps({k: v for k, v in example().items() if k != "steps"}))
    with pytest.raises(DataError, match="steps"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(DataError, match="not a result file"):
        read_result(path)


def test_percent():
    assert percent(None) == "-" and percent(0.5) == "50.0"
