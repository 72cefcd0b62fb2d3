"""The rivals of a race of selections choose the same images."""

from __future__ import annotations

import pytest

from experiments.benchmarks import selection
from experiments.benchmarks.timing import Options


@pytest.mark.parametrize("name", ["herding", "k_center", "facility_location"])
def test_the_plain_choice_is_ours(name, monkeypatch):
    for size, value in dict(IMAGES=60, FEATURES=8, CLASSES=3).items():
        monkeypatch.setattr(selection, size, value)
    found = selection.choice(name, Options(ipc=4, rounds=1, only="numpy,ours", write=False))
    assert found["same_rows_as_numpy"] == found["chosen"] == 12
    assert set(found["median_seconds"]) == {"numpy", "ours"}
