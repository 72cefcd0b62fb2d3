"""The cells of the table of Fashion-MNIST as data, and today's settings of each.

A cell is a method at a budget under a protocol; its figure is one JSON file. A figure is current
while its settings and its test are those of today's preset.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

import dd_jax as dd
from dd_jax import methods
from dd_jax.distill.plan import Plan
from dd_jax.errors import DDJaxError, unknown
from dd_jax.evaluate import Protocol
from experiments.budgets import Budget

SELECTIONS = ("random", "herding", "k_center", "k_means", "facility_location", "graph_cut",
              "moderate", "cw_erm", "el2n", "grand", "forgetting", "margin", "entropy",
              "least_confidence", "cartography", "craig", "grad_match", "dq",
              "influence_distillation", "pca", "cal", "deepfool", "archaeology",
              "robust_active", "ccfs")
METHODS = ("frepo", "dm", "kip", "label_solve", "rfad", "rcig", "dc", "dsa", "dcc", "dsac", "idc",
           "dream", "fyi", "cafe", "idm", "datadam", "wmdd", "ncfm", "m3d", "mtt", "ftd", "tesla",
           "datm", "att", "ast", "dd", "soft_label_dd", "label_distillation", "rat_bptt",
           "linba", *SELECTIONS)
AT_FIFTY = ("frepo", "rcig", "rfad", "m3d", "idc", "dm")
VARIANTS = {"": (), "_flipped": ("--flipped",), "_representative": ("--representative", "256")}
SHARES = (0.1, 0.3)  # of all real images, that selections choose
# Of a result's settings, what is not the method's own: combinators', and addresses of artefacts.
NOT_OWN = ("needs", "flipped", "representative", "stages")


class Cell(NamedTuple):
    """One cell.

    Attributes:
      method: by its name.
      ipc: images per class, in one stage of a method that has several; None where there is a share.
      variant: a name in `VARIANTS`.
      share: of the real images, of a selection.
    """

    method: str
    ipc: float | None
    variant: str = ""
    share: float | None = None

    @property
    def name(self) -> str:
        """What the command line calls it, such as "dm_flipped_ipc1" or "herding_share0.1"."""
        size = f"ipc{self.ipc}" if self.share is None else f"share{self.share}"
        return f"{self.method}{self.variant}_{size}"

    @property
    def budget(self) -> dict[str, float]:
        """The setting that says how many images there are."""
        return {"ipc": self.ipc} if self.share is None else {"share": self.share}


CELLS = (
    *(Cell(method, ipc) for ipc in (1, 10) for method in METHODS), Cell("krr_st", 10),
    *(Cell("podd", ipc) for ipc in (0.3, 0.5, 1)),
    Cell("pdd", 2),  # for each of its five stages
    *(Cell(method, 1, variant) for method in ("frepo", "dm")
      for variant in ("_flipped", "_representative")),
    *(Cell(method, 50) for method in (*AT_FIFTY, *SELECTIONS)),
    *(Cell(method, None, share=share) for share in SHARES for method in SELECTIONS),
)


def chosen(names: str | None) -> list[Cell]:
    """The cells of a comma-separated list of names, in its order; all where there is none.

    Raises:
      ConfigError: an unknown name.
    """
    known = {cell.name: cell for cell in CELLS}
    if names is None:
        return list(CELLS)
    asked = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in asked:
        if name not in known:
            raise unknown("cell", name, known)
    return [known[name] for name in asked]


class Planned(NamedTuple):
    """A cell as today's preset has it.

    Attributes:
      settings: plain values, the method's own.
      protocol: of its test.
      steps: of distilling.
      shown: images that its set shows to networks.
      linear: whether its test is a linear probe, which has no baseline of all real images.
    """

    settings: Mapping[str, Any]
    protocol: Protocol
    steps: int
    shown: int
    linear: bool = False

    @property
    def digest(self) -> str:
        """Eight digits that are others where settings or test are others."""
        text = json.dumps([self.settings, self.protocol.plain()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def budget(self) -> Budget:
        """What it will cost."""
        return Budget(self.steps, self.protocol.steps(self.shown), self.protocol.seeds)


def planned(cell: Cell, data, protocol: str) -> Planned:
    """Today's settings of a cell, with stand-ins for all that would have to be computed first.

    Args:
      cell: which.
      data: the real set, a `Split`.
      protocol: "cpu" or "official".

    Raises:
      ConfigError, DataError: what the run itself would refuse.
    """
    settings = methods.preset(cell.method, protocol, **cell.budget)
    plan = methods.plan_with(cell.method, settings, data)
    recipe = stood_in(plan)
    d = dd.distillation(recipe)
    like = jax.eval_shape(d.init, jax.random.key(0), data.train)
    shown = jax.eval_shape(d.decode, like).images.shape[0]
    return Planned(as_json(dataclasses.asdict(settings)), recipe.evaluation,
                   recipe.steps * plan.stages, shown * plan.stages,
                   recipe.labels.kind == "representations")


def stood_in(plan: Plan) -> dd.Recipe:
    """The recipe of a plan, built of stand-ins for what it needs: nothing is computed."""
    return plan.build({name: need.stand_in() for name, need in plan.needs.items()})


def as_json(values: Any) -> Any:
    """Plain values as they come back from a JSON file: tuples as lists."""
    return json.loads(json.dumps(values, default=str))


def outdated(result: Mapping[str, Any], today: Planned) -> list[str]:
    """In what a result is not of today's preset, in words; empty where it is current."""
    found = result.get("settings")
    if not isinstance(found, Mapping):
        return ["it tells no settings"]
    own = {name: value for name, value in found.items() if name not in NOT_OWN}
    lines = [f"{name} {own.get(name, 'not there')} -> {today.settings.get(name, 'gone')}"
             for name in sorted({*own, *today.settings})
             if name not in own or name not in today.settings or own[name] != today.settings[name]]
    if _test(result) != Protocol.from_plain(as_json(today.protocol.plain())):
        lines.append("another test")
    return lines


def _test(result: Mapping[str, Any]) -> Protocol | None:
    try:
        return Protocol.from_plain(result.get("evaluation") or {})
    except (DDJaxError, TypeError, AttributeError):
        return None


def cost(result: Mapping[str, Any], today: Planned) -> Budget:
    """What a result has cost; test steps of older ones from their test, where it can be read."""
    steps, test = result.get("test_steps"), _test(result)
    if steps is None and test is not None:
        steps = test.steps(today.shown)
    return Budget(result.get("steps"), steps, result.get("networks"))


def command(cell: Cell, *, data: str, protocol: str, full: bool, read_out: bool) -> list[str]:
    """The words of the cell's command after `python -m dd_jax`, without those of its places."""
    budget = [word for name, value in cell.budget.items() for word in (f"--{name}", str(value))]
    return ["distill", cell.method, "--data", data, *budget, "--protocol", protocol,
            "--full" if full else "--no-full", "--read-out" if read_out else "--no-read-out",
            *VARIANTS[cell.variant]]
