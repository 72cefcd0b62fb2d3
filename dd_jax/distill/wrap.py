"""Recipes made of recipes: the same paper with something changed inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dd_jax.distill.recipe import Preparation, Recipe, StoredPreparation
from dd_jax.types import Objective


def with_objective(
    recipe: Recipe, wrap: Callable[[Objective], Objective], settings: Mapping[str, Any], *,
    judge: bool = True,
) -> Recipe:
    """The recipe with its objective wrapped, and its selection's, once they are prepared.

    Args:
      recipe: any recipe.
      wrap: objective -> objective.
      settings: JSON-able; added to the recipe's, since they are part of a run's identity.
      judge: whether the objective that the recipe's selection looks at is wrapped as well.

    Returns:
      A `Recipe`.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> recipe = dd.methods.recipe("dm", real, protocol="cpu", steps=5)
      >>> with_objective(recipe, lambda o: o, {"plain": True}).settings["plain"]
      True
    """
    return changed(recipe, lambda recipe: _wrapped(recipe, wrap, judge), settings)


def changed(
    recipe: Recipe, change: Callable[[Recipe], Recipe], settings: Mapping[str, Any]
) -> Recipe:
    """`change(recipe)`; of a recipe that has yet to be prepared, as soon as it is complete.

    So the change is made to what the preparation gives, and made again where the recipe is prepared
    anew, by `restarted`.

    Args:
      recipe: any recipe.
      change: complete recipe -> recipe; of its fields but for the settings and the preparation.
      settings: JSON-able; added to the recipe's.
    """
    after = recipe if recipe.prepare else change(recipe)
    own = {field.name for field in dataclasses.fields(recipe)
           if getattr(after, field.name) is not getattr(recipe, field.name)}

    def then(preparation: Preparation | StoredPreparation) -> Preparation | StoredPreparation:
        def complete(given: Recipe, arrays) -> Recipe:
            # A recipe that was complete when it was changed: its change is undone, not made twice.
            undone = {name: getattr(recipe, name) for name in own
                      if getattr(given, name) is getattr(after, name)}
            done = preparation.complete(dataclasses.replace(given, **undone), arrays)
            return changed(dataclasses.replace(done, prepare=None), change, {})

        return preparation._replace(complete=complete)

    def restarted(start: Callable, note: str) -> StoredPreparation:
        return then(recipe.restarted(start, note))

    return dataclasses.replace(after, settings={**recipe.settings, **settings},
                               prepare=then(recipe.prepare) if recipe.prepare else None,
                               restarted=restarted if recipe.restarted else None)


def _wrapped(recipe: Recipe, wrap: Callable[[Objective], Objective], judge: bool) -> Recipe:
    """With its lighter variants, whose state is then that of the wrapped objective, too."""
    selection = recipe.selection
    if selection is not None and judge:
        selection = selection._replace(objective=wrap(selection.objective))
    return dataclasses.replace(
        recipe, objective=wrap(recipe.objective), selection=selection,
        lighter=varied(recipe.lighter, lambda lighter: _wrapped(lighter, wrap, judge)))


def varied(
    lighter: Mapping[str, Callable[[], Recipe]], change: Callable[[Recipe], Recipe]
) -> dict[str, Callable[[], Recipe]]:
    """The lighter variants of a recipe that was changed."""
    return {name: lambda build=build: change(build()) for name, build in lighter.items()}
