"""`python -m dd_jax prepare METHOD`: make what a method needs from the real data, and no more.

`prepare teacher` makes a teacher of any network.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dd_jax import methods
from dd_jax.cli.options import Prepare, method_command
from dd_jax.cli.own_data import load_data
from dd_jax.distill.plan import complete, store_beside


def run(words: Sequence[str]) -> int:
    """Parses the words after `prepare` and does it; returns the exit code."""
    if words and words[0] == "teacher":
        from dd_jax.cli.prepare_teacher import run as run_teacher

        return run_teacher(words[1:])
    parsed = method_command("prepare", words, Prepare, others=("teacher",))
    if parsed is None:
        return 0
    method, command = parsed
    data = load_data(command.run).train
    plan = methods.plan_with(method, command.settings, data, memory=command.run.memory)
    if not plan.needs:
        print(f"{method.name} needs nothing from the real data beforehand")
        return 0
    store = store_beside(command.run.artefacts, command.run.workdir)
    print(f"{method.name}: {', '.join(sorted(plan.needs))} on {data.spec.name}, in {store.folder}",
          file=sys.stderr)
    if plan.told:
        print(plan.told, file=sys.stderr)
    complete(plan, data, artefacts=store)
    for got in store.report:
        print(got)
    return 0
