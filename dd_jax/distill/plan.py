"""A plan: what a recipe needs from the real data first, and how the recipe follows from it."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from dd_jax.distill.recipe import Recipe
from dd_jax.errors import ConfigError, require_kind
from dd_jax.run.identity import check_identity
from dd_jax.run.lock import prepare_folder
from dd_jax.run.stop import StopSignals
from dd_jax.run.workdir import owner
from dd_jax.store.artefacts import (
    DEFAULT_FOLDER,
    FOLDER_VARIABLE,
    Artefact,
    ArtefactStore,
)
from dd_jax.store.envelope import plain
from dd_jax.types import Network, RealData


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A recipe as a pure function of artefacts; a method without needs is a plan with none.

    Attributes:
      needs: name -> `Artefact`, made once and shared by every plan that asks for the same.
      build: (name -> what the artefact holds) -> Recipe, always complete.
      later: (network -> the network with other initial parameters, a name for these) -> the plan
        of a later stage, whose artefacts start from there; None for a plan whose artefacts do not
        depend on earlier stages.
      settings: what is known of the recipe's settings before it is built, to tell runs apart by.
      stages: in which `distill.progressive` makes its sets; this is the plan of each.
      told: what the user is told before anything runs, such as what it will hold in memory.
    """

    needs: Mapping[str, Artefact]
    build: Callable[[Mapping[str, Any]], Recipe]
    later: Callable[[Callable[[Network], Network], str], Plan] | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    stages: int = 1
    told: str = ""

    def addresses(self, data: RealData) -> dict[str, str]:
        """name -> address of each need, which the settings of a complete recipe hold."""
        return {name: need.address(data) for name, need in sorted(self.needs.items())}

    def then(self, change: Callable[[Recipe], Recipe]) -> Plan:
        """The plan whose recipe is `change` of this one's: any combinator of recipes.

        Example:
          >>> import numpy as np, dd_jax as dd
          >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
          >>> plan = dd.methods.plan("dm", real, protocol="cpu").then(dd.distill.flipped)
          >>> complete(plan, real).settings["flipped"]
          True
        """
        later = self.later
        return Plan(
            self.needs, lambda have: change(self.build(have)),
            None if later is None else lambda start, note: later(start, note).then(change),
            self.settings, self.stages, self.told)


def check_plan(plan: Plan | Recipe) -> None:
    """Refuses what is neither a plan nor a recipe, such as the name of a method.

    Raises:
      ConfigError: as said.
    """
    name = repr(plan) if isinstance(plan, str) and len(plan) < 40 else "'dm'"
    require_kind("plan", plan, (Plan, Recipe), expected="a Plan or a Recipe",
                 fix=f"pass dd.methods.plan({name}, data)")


def as_plan(plan: Plan | Recipe) -> Plan:
    """The plan itself, or a complete recipe as a plan without needs."""
    check_plan(plan)
    return plan if isinstance(plan, Plan) else Plan(MappingProxyType({}), lambda have: plan)


def complete(
    plan: Plan | Recipe,
    data: RealData,
    *,
    artefacts: ArtefactStore | str | pathlib.Path | None = None,
    show_progress: bool | None = None,
) -> Recipe:
    """The recipe of a plan: what it needs is taken from the store, or made there.

    Args:
      plan: of a method; a complete recipe is returned as it is.
      data: the real training set.
      artefacts: the store or its folder; by default DD_JAX_ARTEFACTS or runs/artefacts.
      show_progress: of what has to be made, which is told on stderr before it begins; False is
        silent.

    Returns:
      A `Recipe` whose settings name the address of every need under "needs".

    Raises:
      CheckpointError: a stored artefact is damaged.
      RunStopped: SIGINT or SIGTERM came; what has been made is kept.
    """
    check_plan(plan)
    if isinstance(plan, Recipe):
        return plan
    if not plan.needs:
        return plan.build({})
    store, have = as_store(artefacts), {}
    _try_out(plan, data, store)
    with StopSignals("stopping after what is being made here") as stop:
        for name, need in plan.needs.items():
            have[name] = store.get(
                need, data, show_progress=show_progress,
                stop=functools.partial(stop.check, "while another process makes what is needed"))
            stop.check(f"after {name} was there, which is kept")
    recipe = plan.build(have)
    return dataclasses.replace(recipe, settings={**recipe.settings, "needs": plan.addresses(data)})


def _try_out(plan: Plan, data: RealData, store: ArtefactStore) -> None:
    """Builds the recipe of stand-ins, so that what it refuses is refused before hours of making."""
    needs = plan.needs.values()
    if all(need.stand_in for need in needs) and not all(store.has(need, data) for need in needs):
        plan.build({name: need.stand_in() for name, need in plan.needs.items()})


def refuse_other_run(
    plan: Plan | Recipe, data: RealData, workdir: str | pathlib.Path | None
) -> None:
    """Refuses the folder of a run with other needs, before these are made for hours.

    With the same needs it is left to the run itself, which compares all: they are there already.

    Raises:
      ConfigError: nothing can be written in the folder.
      CheckpointError: it belongs to another run.
    """
    if isinstance(plan, Recipe) or not plan.needs or workdir is None:
        return
    now = {**plan.settings, "needs": plan.addresses(data)}
    held = owner(prepare_folder(workdir)).get("settings")
    if isinstance(held, Mapping) and held.get("needs") != now["needs"]:
        known = {name: held[name] for name in now if name in held}
        now = plain(now, "settings", error=ConfigError)
        check_identity({"settings": known}, {"settings": now}, where=str(workdir))


def store_beside(
    artefacts: ArtefactStore | str | pathlib.Path | None, workdir: str | pathlib.Path | None
) -> ArtefactStore:
    """The store of a run: the given one, that of DD_JAX_ARTEFACTS, or the one beside its folder."""
    if workdir is not None:
        require_kind("workdir", workdir, (str, os.PathLike), expected="a folder",
                     fix="pass a path, or None to keep nothing")
    if artefacts is None and workdir is not None and not os.environ.get(FOLDER_VARIABLE):
        artefacts = pathlib.Path(workdir).absolute().parent / DEFAULT_FOLDER.name
    return as_store(artefacts)


def as_store(artefacts: ArtefactStore | str | pathlib.Path | None) -> ArtefactStore:
    """The store itself, or the one of a folder; None is the default folder's."""
    if isinstance(artefacts, ArtefactStore):
        return artefacts
    if artefacts is not None:
        require_kind("artefacts", artefacts, (str, os.PathLike),
                     expected="an ArtefactStore or its folder", fix="pass a path, or None")
    return ArtefactStore(artefacts)
