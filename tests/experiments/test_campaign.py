"""Campaigns: one cell at a time, on a quiet machine, in stretches, and nothing good is lost."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
import types

import pytest

from dd_jax.evaluate import protocol
from dd_jax.report.result import FIELDS
from dd_jax.run.stop import EXIT_STOPPED
from experiments import campaign as runner
from experiments import cells
from experiments.campaign import Campaign, Options, exit_code
from experiments.cells import Cell, Planned
from experiments.quiet import Clock, supervised, wait_until_quiet

CELL, OTHER = Cell("dm", 1), Cell("frepo", 1)
TODAY = Planned({"steps": 100, "rate": 0.5}, protocol("t", epochs=30), 100, 10)
STOPS = "trap 'exit 75' TERM; while :; do sleep 0.02; done"


def figure(today=TODAY, **changes):
    """A result of today's settings."""
    values = {name: 1 for name in FIELDS} | dict(
        method="dm", data="toy", protocol="cpu", accuracy_mean=0.7, accuracy_std=0.01, networks=5,
        random_mean=0.5, random_std=0.01, full_mean=0.9, published=None, device="cpu x1",
        steps=today.steps, settings=dict(today.settings), evaluation=today.protocol.plain())
    return values | changes


def clock(*, loads=(0.1,), each=0.0):
    """A clock that moves by `each` seconds a look, and loads that come in turn, the last again."""
    times, loads = itertools.count(), list(loads)
    slept = []
    return Clock(now=lambda: each * next(times), sleep=slept.append, poll=0.02,
                 load=lambda: loads.pop(0) if len(loads) > 1 else loads[0]), slept


def shell(script):
    return ["sh", "-c", script]


def leaves(tmp_path, result):
    """(cell, folder) -> a command that leaves a result, and a line in a file beside it."""
    source = tmp_path / "made.json"
    source.write_text(json.dumps(result))

    def words(cell, folder):
        place = shlex.quote(str(folder))
        return shell(f"mkdir -p {place} && echo run >> {place}/times && "
                     f"cp {shlex.quote(str(source))} {place}/result.json")

    return words


def made(tmp_path, words, *, plan=lambda cell: TODAY, given=None, **changes):
    options = Options(**{"load": 0.5, "runs": tmp_path / "runs",
                         "results": tmp_path / "results", **changes})
    return Campaign(options, data="toy", plan=plan, words=words, clock=given or clock()[0])


def written(tmp_path, cell=CELL):
    return json.loads((tmp_path / "results" / "toy" / f"{cell.name}_cpu.json").read_text())


def put(tmp_path, result, cell=CELL):
    place = tmp_path / "results" / "toy" / f"{cell.name}_cpu.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(result))


def test_a_cell_is_run_once_and_is_current_from_then_on(tmp_path, capsys):
    words = leaves(tmp_path, figure())
    assert made(tmp_path, words).run([CELL]) == {"dm_ipc1": "done"}
    found = written(tmp_path)
    assert found["test_steps"] == 30 and found["accuracy_mean"] == 0.7
    assert found["load"] == {"before": 0.1, "most": 0.1, "after": 0.1, "bound": 0.5,
                             "stretches": 1}
    assert made(tmp_path, words).run([CELL]) == {"dm_ipc1": "current"}
    (times,) = (tmp_path / "runs").glob("*/times")
    assert times.read_text() == "run\n" and "current" in capsys.readouterr().out


def test_a_loaded_machine_is_waited_for_and_its_load_is_told(tmp_path, capsys):
    given, slept = clock(loads=(3.0, 2.0, 0.4, 1.5, 2.5, 1.0))
    assert made(tmp_path, leaves(tmp_path, figure()), given=given).run([CELL])["dm_ipc1"] == "done"
    load = written(tmp_path)["load"]
    assert len(slept) == 2 and load["before"] == 0.4 and load["most"] >= 1.5
    assert "waiting: load 3.00" in capsys.readouterr().out


def test_a_stretch_ends_in_time_and_the_next_goes_on_in_the_same_folder(tmp_path):
    both = [CELL, OTHER]
    stops = made(tmp_path, lambda cell, folder: shell(STOPS), given=clock(each=20.0)[0], minutes=3)
    found = stops.run(both)
    assert found == {"dm_ipc1": "later", "frepo_ipc1": "later"}
    assert exit_code(found) == EXIT_STOPPED
    assert not (tmp_path / "results").exists()
    assert len(list((tmp_path / "runs").glob("toy_dm*.load.json"))) == 1
    assert not list((tmp_path / "runs").glob("toy_frepo*")), "not begun with so little time left"

    found = made(tmp_path, leaves(tmp_path, figure())).run(both)
    assert found == {"dm_ipc1": "done", "frepo_ipc1": "done"} and exit_code(found) == 0
    assert written(tmp_path)["load"]["stretches"] == 2
    assert len(list((tmp_path / "runs").glob("toy_dm*/times"))) == 1


def test_a_machine_that_is_never_quiet_begins_nothing(tmp_path):
    given, _ = clock(loads=(4.0,), each=20.0)
    busy = made(tmp_path, leaves(tmp_path, figure()), given=given, minutes=5)
    assert busy.run([CELL]) == {"dm_ipc1": "later"} and not (tmp_path / "runs").exists()


def test_a_stop_of_the_campaign_stops_its_cell(tmp_path):
    asked = made(tmp_path, lambda cell, folder: shell(STOPS))
    looks = itertools.count()
    asked.stopped = lambda: next(looks) > 3
    assert asked.run([CELL, OTHER]) == {"dm_ipc1": "later", "frepo_ipc1": "later"}


def test_a_cell_that_fails_leaves_the_others_and_the_older_figure_alone(tmp_path, capsys):
    older = figure(settings={"steps": 50, "rate": 0.5}, steps=50)
    put(tmp_path, older)
    good = leaves(tmp_path, figure())

    def words(cell, folder):
        return shell("echo no; exit 2") if cell == CELL else good(cell, folder)

    found = made(tmp_path, words).run([CELL, OTHER])
    assert found == {"dm_ipc1": "failed", "frepo_ipc1": "done"} and exit_code(found) == 1
    assert written(tmp_path) == older and "exit code 2" in capsys.readouterr().out
    (log,) = (tmp_path / "runs").glob("toy_dm*.log")
    assert log.read_text() == "no\n"
    silent = made(tmp_path, lambda cell, folder: shell("true"))  # leaves no result
    assert silent.run([CELL]) == {"dm_ipc1": "failed"} and written(tmp_path) == older


@pytest.mark.parametrize("changes,told", [
    (dict(steps=101), "steps 101 > 100"), (dict(networks=6), "networks 6 > 5"),
    (dict(evaluation=protocol("t", epochs=31).plain()), "test steps 31 > 30"),
    (dict(test_steps=99), "test steps 99 > 30"),
], ids=["steps", "networks", "test", "told test"])
def test_a_better_budgeted_figure_is_kept_unless_told(tmp_path, capsys, changes, told):
    older = figure(**{"settings": {"steps": 101, "rate": 0.5}, **changes})
    put(tmp_path, older)
    words = leaves(tmp_path, figure())
    assert made(tmp_path, words).run([CELL]) == {"dm_ipc1": "kept"}
    assert told in capsys.readouterr().out
    assert written(tmp_path) == older and not (tmp_path / "runs").exists()
    assert made(tmp_path, words, replace=True).run([CELL]) == {"dm_ipc1": "done"}
    assert written(tmp_path)["steps"] == 100 and "replaces 70.0 ± 1.0" in capsys.readouterr().out


def test_a_changed_preset_is_run_in_a_folder_of_its_own(tmp_path):
    words = leaves(tmp_path, figure())
    made(tmp_path, words).run([CELL])
    changed = TODAY._replace(settings={"steps": 100, "rate": 1.0})
    words = leaves(tmp_path, figure(changed))
    assert made(tmp_path, words, plan=lambda cell: changed).run([CELL]) == {"dm_ipc1": "done"}
    assert len(list((tmp_path / "runs").glob("*/times"))) == 2, "the older one is still there"
    assert written(tmp_path)["settings"]["rate"] == 1.0


def test_a_figure_without_its_ceiling_is_not_finished(tmp_path):
    put(tmp_path, figure(full_mean=None))
    words = leaves(tmp_path, figure())
    assert made(tmp_path, words, full=False).run([CELL]) == {"dm_ipc1": "current"}
    linear = TODAY._replace(linear=True)
    assert made(tmp_path, words, plan=lambda c: linear).run([CELL]) == {"dm_ipc1": "current"}
    assert made(tmp_path, words).run([CELL]) == {"dm_ipc1": "done"}


def test_a_damaged_figure_is_told_and_stays(tmp_path, capsys):
    put(tmp_path, figure())
    place = tmp_path / "results" / "toy" / "dm_ipc1_cpu.json"
    place.write_text("{")
    found = made(tmp_path, leaves(tmp_path, figure())).run([CELL])
    assert found == {"dm_ipc1": "failed"} and place.read_text() == "{"
    assert "not a result file" in capsys.readouterr().out


def test_a_damaged_diary_of_loads_ends_nothing(tmp_path):
    words = leaves(tmp_path, figure())
    made(tmp_path, words).run([CELL])
    (diary,) = (tmp_path / "runs").glob("*.load.json")
    for text in ("{", '{"stretches": [1]}', "[]"):
        diary.write_text(text)
        (tmp_path / "results" / "toy" / "dm_ipc1_cpu.json").unlink()
        assert made(tmp_path, words).run([CELL]) == {"dm_ipc1": "done"}


def test_a_command_that_does_not_end_is_killed(tmp_path):
    ready = tmp_path / "ready"
    deaf = shell(f"trap '' TERM; touch {shlex.quote(str(ready))}; while :; do sleep 0.02; done")
    ended = supervised(deaf, log=tmp_path / "log", clock=clock(each=1.0)[0], over=ready.exists,
                       grace=5.0)
    assert ended.asked and ended.later and ended.code == -9


@pytest.mark.parametrize("script,later", [("exit 75", True), ("exit 3", False), ("exit 0", False)])
def test_how_a_command_ended(tmp_path, script, later):
    ended = supervised(shell(script), log=tmp_path / "log", clock=clock()[0], over=lambda: False)
    assert ended.later is later and not ended.asked


def test_waiting_is_given_up():
    given, slept = clock(loads=(2.0,))
    looks = itertools.count()
    told = []
    assert wait_until_quiet(1.0, given, over=lambda: next(looks) > 2, tell=told.append) is None
    assert len(slept) == 3 and len(told) == 1


def test_the_command_renders_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cells, "planned", lambda cell, data, name: TODAY)
    toy = types.SimpleNamespace(train=types.SimpleNamespace(spec=types.SimpleNamespace(name="toy")))
    monkeypatch.setattr(runner, "load", lambda name: toy)
    monkeypatch.setattr(sys, "argv", ["campaign"])
    put(tmp_path, figure(load={"before": 0.1, "most": 2.2}, test_steps=1000))
    options = Options(cells="dm_ipc1", data="some/folder", results=tmp_path / "results")
    assert runner.main(options) == 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| test steps | load |" in text and "| 1,000 | 0.1, 2.2 |" in text
    assert "current: dm_ipc1" in capsys.readouterr().out
