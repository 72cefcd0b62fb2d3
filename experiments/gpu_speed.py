"""Steps per second of a method beside the same step in PyTorch, on the device that is there.

The steps in PyTorch are those of `experiments.benchmarks.torch_step`, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments.benchmarks.steps import Steps, measure
from experiments.budgets import part

ROUNDS = 5


class Race(NamedTuple):
    """A method and its rival.

    Attributes:
      method: with its official settings at one image per class.
      rival: a name in `torch_step.STEPS`.
      steps: to be timed in all.
      each: steps of ours that one of the rival's stands for; class by class, one is a class's.
      changes: of the settings, where what is needed first would take longer than the steps.
    """

    method: str
    rival: str
    steps: int
    each: int = 1
    changes: Mapping[str, Any] = {}


RACES = {
    "speed_frepo": Race("frepo", "frepo", 400),
    "speed_dm": Race("dm", "dm", 400),
    "speed_dc": Race("dc", "dc", 200),
    "speed_idc": Race("idc", "idc", 400, each=10),
    "speed_mtt": Race("mtt", "mtt", 50, changes=dict(expert_count=1, expert_epochs=3)),
    "speed_linba": Race("linba", "unrolled", 25),
    "speed_datadam": Race("datadam", "datadam", 200),
    "speed_ncfm": Race("ncfm", "ncfm", 400, each=20, changes=dict(bank=1, bank_steps=1)),
}


def race(name: str, *, share: float, width: int | None, data: str, artefacts: pathlib.Path,
         left: Callable[[], float]) -> dict[str, Any]:
    """Times ours, then the rival.

    Args:
      name: in `RACES`.
      share: of the steps.
      width: of the networks, instead of 128.
      data: as on the command line.
      artefacts: folder of what is made first.
      left: () -> seconds, after which the rival is given up.

    Returns:
      JSON-able: seconds of the rival's step, of ours for the same, and their ratio; None for a
      rival that did not run, and why.
    """
    asked = RACES[name]
    changes = {**asked.changes, **({} if width is None else {"width": width})}
    steps = part(asked.steps, share)
    ours = measure(Steps(
        method=asked.method, ipc=1, protocol="official", data=data, steps=steps,
        warm_up=min(steps, 2 * asked.each), rounds=min(ROUNDS, steps), changes=json.dumps(changes),
        artefacts=artefacts))
    mine = asked.each / ours["median_steps_per_second"]
    found = rival(asked.rival, width=width or 128, rounds=max(3, steps // asked.each),
                  seconds=left())
    theirs = found.get("seconds")
    return {"job": name, "ours": ours, "ours_seconds": mine, "torch": found,
            "torch_seconds": theirs, "ratio": theirs and theirs / mine,
            "steps_each": asked.each, "share": share}


def rival(name: str, *, width: int, rounds: int, seconds: float) -> dict[str, Any]:
    """What `torch_step` prints, or why there is nothing."""
    if importlib.util.find_spec("torch") is None:
        return {"missing": "torch is not installed"}
    words = [sys.executable, "-m", "experiments.benchmarks.torch_step", name, "--width", str(width),
             "--rounds", str(rounds)]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=True)
        return json.loads(ran.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return {"missing": said[-1] if said else type(error).__name__}
