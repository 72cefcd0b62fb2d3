"""The outer loop: recipes, pure stepping functions and complete runs."""

from dd_jax.callable_module import make_callable
from dd_jax.distill.flipped import flipped
from dd_jax.distill.outer import Distillation, DistillState, distillation
from dd_jax.distill.recipe import Preparation, Recipe, prepared
from dd_jax.distill.representative import representative
from dd_jax.distill.run import distil, package

__all__ = ["DistillState", "Distillation", "Preparation", "Recipe", "distil", "distillation",
           "flipped", "package", "prepared", "representative"]

make_callable(__name__, "distil")
