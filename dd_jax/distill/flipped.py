"""FYI as one line over any recipe."""

from __future__ import annotations

from dd_jax.distill.recipe import Recipe, check_recipe, with_objective
from dd_jax.errors import ConfigError
from dd_jax.objectives.mirrored import mirrored


def flipped(recipe: Recipe) -> Recipe:
    """The recipe whose loss sees the synthetic set together with its mirror images.

    Storage, real data, networks and evaluation stay as they are; the synthetic side costs twice.
    Do not use it on digits: a mirrored 2 is no 2. FRePo and RCIG mirror small colour sets by
    themselves: give them flip=False first.

    Args:
      recipe: of any method with an objective.

    Returns:
      A `Recipe` with the setting "flipped".

    Raises:
      ConfigError: it is flipped already, by this or by its own setting, or its objective knows its
        images one by one.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> real = dd.data.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 0, 1, 1]))
      >>> recipe = flipped(dd.methods.recipe("dm", real, protocol="cpu", steps=5))
      >>> recipe.settings["flipped"]
      True

    Source: Son et al., FYI: Flip Your Images for Dataset Distillation, ECCV 2024.
    """
    check_recipe(recipe)
    if "flipped" in recipe.settings or recipe.settings.get("flip") is True:
        raise ConfigError(f"the recipe of {recipe.method} is flipped already",
                          fix="start from the plain recipe, with flip=False")
    if recipe.objective.bound:
        raise ConfigError(f"the recipe of {recipe.method} cannot be flipped: "
                          + recipe.objective.bound, fix="choose another method")
    return with_objective(recipe, mirrored, {"flipped": True})
