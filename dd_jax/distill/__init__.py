"""The outer loop: recipes, pure stepping functions and complete runs."""

from dd_jax.callable_module import make_callable
from dd_jax.distill.boosted import boosted, grown
from dd_jax.distill.flipped import flipped
from dd_jax.distill.outer import Distillation, DistillState, distillation
from dd_jax.distill.progressive import progressive
from dd_jax.distill.recipe import Preparation, Recipe, StoredPreparation, prepared
from dd_jax.distill.representative import representative
from dd_jax.distill.run import distill, package
from dd_jax.distill.selection import Selection
from dd_jax.run.experts import train_experts

__all__ = ["DistillState", "Distillation", "Preparation", "Recipe", "Selection",
           "StoredPreparation", "boosted", "distill", "distillation", "flipped", "grown", "package",
           "prepared", "progressive", "representative", "train_experts"]

make_callable(__name__, "distill")
