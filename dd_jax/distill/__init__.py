"""The outer loop: plans, recipes, pure stepping functions and complete runs."""

from dd_jax.callable_module import make_callable
from dd_jax.distill.best_so_far import BestSoFar
from dd_jax.distill.boosted import boosted, grown
from dd_jax.distill.flipped import flipped
from dd_jax.distill.outer import Distillation, DistillState, distillation
from dd_jax.distill.plan import Plan, complete
from dd_jax.distill.progressive import progressive
from dd_jax.distill.recipe import Recipe
from dd_jax.distill.representative import representative
from dd_jax.distill.run import distill, package

__all__ = ["BestSoFar", "DistillState", "Distillation", "Plan", "Recipe", "boosted", "complete",
           "distill", "distillation", "flipped", "grown", "package", "progressive",
           "representative"]

make_callable(__name__, "distill")
