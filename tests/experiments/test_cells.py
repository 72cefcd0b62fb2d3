"""The list of cells, and what is current of the figures."""

from __future__ import annotations

import dataclasses

import pytest

from dd_jax import methods
from dd_jax.data import load_embedded
from dd_jax.errors import ConfigError
from dd_jax.evaluate import protocol
from dd_jax.methods import METHODS
from dd_jax.methods.families.budgets import evaluation_steps
from dd_jax.types import Split
from experiments import cells
from experiments.cells import CELLS, Cell, Planned
from tests.laws import members


def test_every_method_has_a_cell_and_every_cell_one_name():
    assert {cell.method for cell in CELLS} == set(METHODS)
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert {cell.ipc for cell in CELLS} == {0.3, 0.5, 1, 2, 10, 50, None}
    assert {cell.share for cell in CELLS} == {None, 0.1, 0.3}


def test_cells_are_chosen_by_name():
    assert cells.chosen(None) == list(CELLS)
    assert [c.name for c in cells.chosen(" dm_ipc10, frepo_flipped_ipc1,dm_ipc10")] == [
        "dm_ipc10", "frepo_flipped_ipc1"]
    with pytest.raises(ConfigError, match="dm_ipc10"):
        cells.chosen("dm_ipc100")


def test_the_command_of_a_cell_is_one_of_the_command_line():
    from dd_jax.cli.options import method_command

    words = cells.command(Cell("dm", 1, "_flipped"), data="embedded", protocol="cpu", full=True,
                          read_out=False)
    method, command = method_command("distill", words[1:])
    assert words[0] == "distill" and method.name == "dm" and command.run.flipped
    assert command.run.full and not command.run.read_out and command.run.data == "embedded"
    assert command.settings == methods.preset("dm", "cpu", 1)


def test_a_share_is_in_the_command_and_decides_how_long_networks_are_tested(embedded):
    from dd_jax.cli.options import method_command

    cell = Cell("herding", None, share=0.3)
    words = cells.command(cell, data="embedded", protocol="cpu", full=False, read_out=False)
    _, command = method_command("distill", words[1:])
    assert cell.name == "herding_share0.3" and cell in cells.chosen("herding_share0.3")
    assert command.settings == methods.preset("herding", "cpu", share=0.3)
    planned = cells.planned(cell, embedded, "cpu")
    assert planned.shown == 2400 and planned.budget.test_steps >= evaluation_steps(240) == 2000


@pytest.mark.parametrize("name,steps,shown", [("dm", 4000, 2), ("m3d", 1500, 8)])
def test_what_a_cell_will_cost_is_known_without_running_it(name, steps, shown):
    toy = members.toy_data()
    today = cells.planned(Cell(name, 1), Split(toy, toy), "cpu")
    settings = methods.preset(name, "cpu", 1)
    assert today.settings == cells.as_json(dataclasses.asdict(settings))
    assert today.shown == shown and not today.linear
    assert today.steps == (settings.steps if name == "dm" else settings.iterations)
    assert today.budget.networks == 5
    assert today.budget.test_steps >= evaluation_steps(1)


# Networks whose training is part of the set or of the method, so that the test is theirs.
OWN_TEST = {
    "dd": "a step for each of the set's rates", "soft_label_dd": "as dd",
    "label_distillation": "for about as long as a network serves", "rat_bptt": "the loop's steps",
    "podd": "as rat_bptt", "linba": "passes over what the bases show",
    "krr_st": "pre-training, before a linear probe", "pdd": "passes over what five stages have",
}
SHORT = {"frepo": 600, "rcig": 600, "kip": 600, "label_solve": 600}  # three minutes


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(OWN_TEST)))
def test_ten_images_of_a_class_are_tested_for_a_thousand_steps_or_told_here(method, embedded):
    planned = cells.planned(Cell(method, 10), embedded, "cpu")
    assert planned.budget.test_steps >= SHORT.get(method, 1000)


def test_stand_ins_take_the_place_of_what_would_have_to_be_computed():
    toy = members.toy_data()
    plan = methods.plan("mtt", toy, protocol="cpu")
    assert plan.needs and cells.stood_in(plan).method == "mtt"


TODAY = Planned({"steps": 100, "rate": 0.5, "sizes": [1, 2]}, protocol("t", epochs=30), 100, 10)


def result(**changes):
    return {"settings": dict(TODAY.settings), "evaluation": TODAY.protocol.plain(), "steps": 100,
            "networks": 5, **changes}


def test_a_result_of_todays_settings_is_current():
    assert cells.outdated(result(), TODAY) == []
    assert cells.outdated(result(settings={**TODAY.settings, "needs": {"a": "b"}, "flipped": True}),
                          TODAY) == []
    flat = {"name": "t", "epochs": 30}  # as older files name them
    assert cells.outdated(result(evaluation=flat), TODAY) == []


@pytest.mark.parametrize("changes,told", [
    ({"settings": {**TODAY.settings, "rate": 1.0}}, "rate 1.0 -> 0.5"),
    ({"settings": {"steps": 100, "rate": 0.5}}, "sizes not there -> [1, 2]"),
    ({"settings": {**TODAY.settings, "old": 1}}, "old 1 -> gone"),
    ({"evaluation": protocol("t", epochs=29).plain()}, "another test"),
    ({"evaluation": {"epoch": 30}}, "another test"), ({"evaluation": {}}, "another test"),
    ({"settings": None}, "no settings"),
], ids=["value", "new", "gone", "test", "foreign", "none", "nothing"])
def test_what_is_not_of_today_is_named(changes, told):
    found = cells.outdated(result(**changes), TODAY)
    assert len(found) == 1 and told in found[0]


def test_other_settings_are_another_run():
    assert TODAY.digest == TODAY._replace(steps=7).digest  # follows from the settings
    assert TODAY.digest != TODAY._replace(settings={"steps": 101}).digest
    assert TODAY.digest != TODAY._replace(protocol=protocol("t", epochs=31)).digest


def test_what_a_result_has_cost():
    assert cells.cost(result(), TODAY) == (100, 30, 5)
    assert cells.cost(result(test_steps=77), TODAY) == (100, 77, 5)
    assert cells.cost({"evaluation": {"epoch": 1}}, TODAY) == (None, None, None)
