"""A recipe: all that a paper chooses, as one frozen record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from dd_jax.data.normalise import Normaliser
from dd_jax.distill.best_so_far import BestSoFar, check_best_so_far
from dd_jax.errors import ConfigError, require_decay, require_kind, require_whole
from dd_jax.evaluate.protocol import Protocol
from dd_jax.synthetic.labels import Labels
from dd_jax.types import Objective, Parameterization, PyTree, RealData, SyntheticSet

# Under a label of its own: a plain fold_in(key, 1) is the key of a consumer of the outer loop.
_PARTS = 2000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to distil, from where, by which objective, with which optimizer.

    `dataclasses.replace` is the way to vary one.

    Attributes:
      method: the paper's acronym in lower case.
      settings: every value that shaped the recipe, JSON-able; identifies a run.
      start: (data, key) -> SyntheticSet, what the set is before the first step.
      parameterization: how the set is stored and learned.
      objective: the scalar to minimise.
      optimizer: one optax transformation for every learned leaf, or a mapping from the
        parameterization's group names ("images", "labels", ...) to transformations.
      steps: outer steps; 0 for a set that is chosen or solved for without any.
      normaliser: from stored real images to model space.
      evaluation: the protocol that its networks are tested by.
      labels: what the set's labels mean.
      average: decay of an exponential moving average of the parameters, with bias correction; the
        average is what is saved. None: the last parameters.
      best_so_far: how the best set of the run is found, which is then what is saved; None: the
        last.
      finalise: (set, data, key) -> set, applied once to the finished set, such as a relabelling.
      notes: JSON-able; what the set's file tells beside the settings: "citation" (BibTeX of the
        paper), the rows of chosen images. No part of a run's identity.
    """

    method: str
    settings: Mapping[str, Any]
    start: Callable[[RealData, jax.Array], SyntheticSet]
    parameterization: Parameterization
    objective: Objective
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation]
    steps: int
    normaliser: Normaliser
    evaluation: Protocol
    labels: Labels = Labels()
    average: float | None = None
    best_so_far: BestSoFar | None = None
    finalise: Callable[[SyntheticSet, RealData, jax.Array], SyntheticSet] | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require_whole("steps", self.steps, least=0, example=100)
        if self.average is not None:
            require_decay("average", self.average)
        if self.best_so_far is not None:
            check_best_so_far(self.best_so_far)
            if self.best_so_far.objective is self.objective and self.objective.turns > 1:
                raise ConfigError(f"best_so_far's objective is {self.method}'s own, which takes "
                                  "turns", fix="judge by an objective of the whole set")


def check_recipe(recipe: Recipe) -> None:
    """Refuses what is no complete recipe, such as a plan.

    Raises:
      ConfigError: as said.
    """
    require_kind("the recipe", recipe, Recipe, expected="a complete Recipe",
                 fix="of a plan, call plan.then(change)")


def part_key(key: jax.Array, part: int) -> jax.Array:
    """The key of a stage or block of a run in several parts, of which part 0 has the run's own."""
    return key if part == 0 else jax.random.fold_in(jax.random.fold_in(key, _PARTS), part)


def grouped_optimizer(recipe: Recipe, params: PyTree) -> optax.GradientTransformation:
    """The recipe's optimizer by group, with the constant leaves never updated.

    Raises:
      ConfigError: a group of the parameterization has no optimizer.
    """
    groups = recipe.parameterization.groups(params)
    names = set(jax.tree.leaves(groups)) - {"constant"}
    if isinstance(recipe.optimizer, Mapping):
        by_group = dict(recipe.optimizer)
        missing = sorted(names - set(by_group))
        if missing:
            raise ConfigError(f"no optimizer for the group {missing[0]!r}",
                              fix=f"give one for each of {sorted(names)}")
    else:
        by_group = {name: recipe.optimizer for name in sorted(names)}
    if "constant" not in jax.tree.leaves(groups) and len(names) == 1:
        return by_group[names.pop()]
    by_group["constant"] = optax.set_to_zero()
    return optax.partition(by_group, groups)


def with_objective(
    recipe: Recipe, wrap: Callable[[Objective], Objective], settings: Mapping[str, Any], *,
    judge: bool = True,
) -> Recipe:
    """The recipe with its objective wrapped, and that of its `best_so_far`.

    Args:
      recipe: any recipe.
      wrap: objective -> objective, a combinator.
      settings: JSON-able; added to the recipe's, since they are part of a run's identity.
      judge: whether the objective that finds the best set is wrapped as well.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> recipe = dd.methods.recipe("dm", real, protocol="cpu", steps=5)
      >>> with_objective(recipe, lambda o: o, {"plain": True}).settings["plain"]
      True
    """
    check_recipe(recipe)
    best = recipe.best_so_far
    if best is not None and judge:
        best = best._replace(objective=wrap(best.objective))
    return dataclasses.replace(recipe, objective=wrap(recipe.objective), best_so_far=best,
                               settings={**recipe.settings, **settings})
