"""Any recipe on representative real batches instead of random ones.

Source: Liu et al., DREAM: Efficient Dataset Distillation by Representative Matching, ICCV 2023.
"""

from __future__ import annotations

from dd_jax.data import require_on_device
from dd_jax.distill.recipe import Recipe, check_recipe, with_objective
from dd_jax.errors import ConfigError
from dd_jax.evaluate.build import build_network
from dd_jax.objectives.representative import check_refresh, representative_batches
from dd_jax.types import Objective, RealData


def representative(
    recipe: Recipe,
    data: RealData,
    *,
    every: int = 10,
    candidates: int | None = None,
    iterations: int = 10,
    subsample: int = 1,
) -> Recipe:
    """The recipe with real batches that represent their classes, as DREAM does it to any method.

    Embeddings come from the objective's own network; for one without, from freshly initialised
    networks of the recipe's evaluation protocol.

    Args:
      recipe: any that uses real batches.
      data: the real training set, on the device.
      every: iterations for which representatives are kept; an iteration has `objective.turns`
        steps.
      candidates: random images of each class among which they are chosen; None for all.
      iterations: of k-means.
      subsample: images for each cluster, the nearest ones of its centre.

    Returns:
      A `Recipe` with "representative" among its settings, so that its runs are not confused with
      those of the plain one.

    Raises:
      ConfigError: settings that cannot be, a recipe that is representative already, images not on
        the device; at the start of a run: an objective without real batches.

    Example:
      >>> import numpy as np, dd_jax as dd
      >>> rng = np.random.default_rng(0)
      >>> real = dd.data.from_arrays(rng.integers(0, 256, (8, 8, 8, 1), np.uint8),
      ...                            np.arange(8) % 2)
      >>> recipe = dd.methods.recipe("dm", real, depth=1, width=4, batch_size=2, steps=2)
      >>> representative(recipe, real, every=5).settings["representative"]["every"]
      5
    """
    check_recipe(recipe)
    if "representative" in recipe.settings:
        raise ConfigError(f"the recipe of {recipe.method} has representative batches already",
                          fix="start from the plain recipe")
    if not recipe.objective.real:
        reason = f": {recipe.objective.bound}" if recipe.objective.bound else ""
        raise ConfigError(f"the recipe of {recipe.method} takes no real batches{reason}",
                          fix="choose another method")
    options = dict(every=every, candidates=candidates, iterations=iterations, subsample=subsample)
    check_refresh(**options)
    require_on_device(data, "the choice of representatives")

    def wrap(objective: Objective) -> Objective:
        network = None if objective.embed else build_network(recipe.evaluation, data.spec)
        return representative_batches(objective, data, normaliser=recipe.normaliser,
                                      network=network,
                                      **{**options, "every": every * recipe.objective.turns})

    return with_objective(recipe, wrap, {"representative": options}, judge=False)
