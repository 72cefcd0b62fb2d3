"""Every method can be run from the command line with the settings of each protocol."""

from __future__ import annotations

import dataclasses

import pytest

from dd_jax.cli.options import Run, method_command
from dd_jax.methods import METHODS, preset


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_takes_the_options_of_a_run(name):
    method = METHODS[name]
    ipc = 10 if name == "krr_st" else 1
    words = [name, "--ipc", str(ipc), "--protocol", "official", "--seed", "3"]
    found, command = method_command("distill", words)
    assert found.settings is method.settings and command.run.seed == 3
    assert command.settings == preset(name, "official", ipc)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_setting_has_the_name_of_an_option_of_a_run(name):
    run = {field.name for field in dataclasses.fields(Run)}
    assert not run & {field.name for field in dataclasses.fields(METHODS[name].settings)}
