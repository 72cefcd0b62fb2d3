"""A recipe: all that a paper chooses, as one frozen record."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from dd_jax.data.normalise import Normaliser
from dd_jax.errors import ConfigError, unknown
from dd_jax.evaluate.protocol import Protocol
from dd_jax.synthetic import LABEL_KINDS
from dd_jax.types import Objective, Parameterization, PyTree, RealData, SyntheticSet


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to distil, from where, by which objective, with which optimiser.

    `dataclasses.replace` is the way to vary one.

    Attributes:
      method: the paper's acronym in lower case.
      settings: every value that shaped the recipe, JSON-able; identifies a run.
      initialise: (data, key) -> SyntheticSet, the start.
      parameterization: how the set is stored and learned.
      objective: the scalar to minimise.
      optimizer: one optax transformation for every learned leaf, or a mapping from the
        parameterization's group names ("images", "labels", ...) to transformations.
      steps: outer steps.
      normaliser: from stored real images to model space.
      label_kind, label_scale: what the set's labels mean.
      evaluation: the protocol that its networks are tested by.
      citation: how to cite the paper.
    """

    method: str
    settings: Mapping[str, Any]
    initialise: Callable[[RealData, jax.Array], SyntheticSet]
    parameterization: Parameterization
    objective: Objective
    optimizer: optax.GradientTransformation | Mapping[str, optax.GradientTransformation]
    steps: int
    normaliser: Normaliser
    evaluation: Protocol
    label_kind: str = "one_hot"
    label_scale: float = 1.0
    citation: str = ""

    def __post_init__(self):
        if self.label_kind not in LABEL_KINDS:
            raise unknown("label kind", self.label_kind, LABEL_KINDS)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ConfigError(f"steps is {self.steps!r}, expected an integer of at least 1",
                              fix="pass steps=1 or more")


def grouped_optimizer(recipe: Recipe, params: PyTree) -> optax.GradientTransformation:
    """The recipe's optimiser by group, with the constant leaves never updated.

    Raises:
      ConfigError: a group of the parameterization has no optimiser.
    """
    groups = recipe.parameterization.groups(params)
    names = set(jax.tree.leaves(groups)) - {"constant"}
    if isinstance(recipe.optimizer, Mapping):
        by_group = dict(recipe.optimizer)
        missing = names - set(by_group)
        if missing:
            raise ConfigError(f"no optimizer for the group {sorted(missing)[0]!r}",
                              fix=f"give one for each of {sorted(names)}")
    else:
        by_group = {name: recipe.optimizer for name in names}
    if "constant" not in jax.tree.leaves(groups) and len(names) == 1:
        return by_group[names.pop()]
    by_group["constant"] = optax.set_to_zero()
    return optax.partition(by_group, groups)
