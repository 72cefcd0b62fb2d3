"""`python -m dd_jax experts METHOD`: train the experts that a trajectory method starts from."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import jax

from dd_jax import methods
from dd_jax.cli.options import load_data, method_command
from dd_jax.distill.recipe import preparation_key
from dd_jax.errors import ConfigError
from dd_jax.methods.trajectory import TrajectorySettings


def run(words: Sequence[str]) -> int:
    """Parses the words after `experts` and does it; returns the exit code."""
    choice = {name: method for name, method in methods.METHODS.items()
              if issubclass(method.config, TrajectorySettings)}
    parsed = method_command("experts", words, choice)
    if parsed is None:
        return 0
    method, command = parsed
    options, config = command.run, command.config
    if config.experts is not None:
        raise ConfigError(f"experts is {str(config.experts)!r}, but they are to be trained",
                          fix="name the folder by --workdir")
    data = load_data(options.data).train
    folder = options.workdir or pathlib.Path("runs") / f"experts_{data.spec.name}_{method.name}"
    print(f"{method.name}: {config.expert_count} experts of {config.expert_epochs} epochs on "
          f"{data.spec.name}, in {folder}", file=sys.stderr)
    recipe = method.recipe(config, data)
    recipe.prepare.write(data, preparation_key(jax.random.key(options.seed)), folder)
    print(f"use them: python -m dd_jax distill {method.name} --experts {folder}")
    return 0
