"""Recipes made of recipes: the same paper with another objective inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dd_jax.distill.recipe import Recipe
from dd_jax.types import Objective


def with_objective(
    recipe: Recipe, wrap: Callable[[Objective], Objective], settings: Mapping[str, Any]
) -> Recipe:
    """The recipe with its objective wrapped, also where the objective has yet to be prepared.

    Args:
      recipe: any recipe.
      wrap: objective -> objective.
      settings: JSON-able; added to the recipe's, since they are part of a run's identity.

    Returns:
      A `Recipe`.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> recipe = dd.methods.recipe("dm", real, protocol="cpu", steps=5)
      >>> with_objective(recipe, lambda o: o, {"plain": True}).settings["plain"]
      True
    """
    new = {**recipe.settings, **settings}
    if recipe.prepare is None:
        return dataclasses.replace(_wrapped(recipe, wrap), settings=new)
    complete = recipe.prepare.complete

    def then_wrapped(given: Recipe, arrays) -> Recipe:
        return _wrapped(complete(given, arrays), wrap)

    return dataclasses.replace(recipe, settings=new,
                               prepare=recipe.prepare._replace(complete=then_wrapped))


def _wrapped(recipe: Recipe, wrap: Callable[[Objective], Objective]) -> Recipe:
    """With its lighter variants, whose state is then that of the wrapped objective, too."""
    return dataclasses.replace(
        recipe, objective=wrap(recipe.objective),
        lighter=varied(recipe.lighter, lambda lighter: _wrapped(lighter, wrap)))


def varied(
    lighter: Mapping[str, Callable[[], Recipe]], change: Callable[[Recipe], Recipe]
) -> dict[str, Callable[[], Recipe]]:
    """The lighter variants of a recipe that was changed."""
    return {name: lambda build=build: change(build()) for name, build in lighter.items()}
