"""The benchmark of relabelling runs without PyTorch where ours alone is asked for."""

from __future__ import annotations

from types import SimpleNamespace

from experiments.benchmarks import relabelling
from experiments.benchmarks.timing import Options


def test_our_rival_labels_an_epoch(toy, monkeypatch):
    found = {}
    monkeypatch.setattr(relabelling.dd.data, "load", lambda name: SimpleNamespace(train=toy))
    monkeypatch.setattr(relabelling, "store_settings",
                        lambda name, **more: relabelling_settings("top2", **more))
    monkeypatch.setattr(relabelling, "race", lambda *args, **more: found.update(
        race(*args, **more)))
    relabelling.relabelling(Options(rounds=1, only="ours", write=False, width=4))
    assert found["views"] == 64 and found["views_per_second"]["ours"] > 0


relabelling_settings, race = relabelling.store_settings, relabelling.race
