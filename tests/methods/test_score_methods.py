"""Selections by neighbours, boundaries, probes and queries, as methods."""

from __future__ import annotations

import json

from dd_jax.select.probes import SUITES
from tests.methods.tiny import made


def test_the_set_notes_how_well_held_out_probes_are_told_apart(store):
    found = made("archaeology", store, ipc=3).recipe
    told = found["probe_accuracy"]
    assert set(told) == {*SUITES[:4], "all"} and all(0 <= value <= 1 for value in told.values())
    json.dumps(told)
    more = made("archaeology", store, ipc=3, random_inputs=True).recipe["probe_accuracy"]
    assert set(more) == {*SUITES, "all"}


def test_a_budget_and_a_suite_share_the_training_with_probes(store):
    before = len([1 for entry, how, _ in store.report if entry.startswith("probed")
                  and how == "made"])
    rows = [made("archaeology", store, **changes).recipe["rows"] for changes in (
        dict(ipc=5), dict(ipc=5, order="bottom"), dict(ipc=5, suite="random_outputs"))]
    after = len([1 for entry, how, _ in store.report if entry.startswith("probed")
                 and how == "made"])
    assert after - before <= 1 and len(set(map(tuple, rows))) == 3


def test_settings_change_the_choice(store):
    for name, changes in (("cal", dict(order="bottom")), ("deepfool", dict(order="bottom")),
                          ("robust_active", dict(choice_seed=1))):
        first, other = (made(name, store, ipc=4, **more).recipe["rows"]
                        for more in ({}, changes))
        assert first != other, name
