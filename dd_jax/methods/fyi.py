"""FYI: Flip Your Images for Dataset Distillation (Son et al., ECCV 2024), on DSA.

The synthetic set enters every loss together with its mirror images. `distill.flipped(recipe)` does
that to any recipe; this method is the paper's composition with DSA: `flipped(dsa)`.

Differs from the official code: as DSA does, see `methods.dsa`; DSA's own flip stays one of its six
operations (there it precedes one of the other five); networks are trained on batches of the set and
its mirror images (there each batch is doubled by its own mirror images, which is the same wherever
twice the set fits into one batch); the loops at 50 per class are DSA's (there 10 and 10 for
CIFAR-100).
"""

from __future__ import annotations

from dd_jax.distill.flipped import flipped
from dd_jax.distill.recipe import Recipe
from dd_jax.methods import dsa
from dd_jax.methods.frame import Site


class FYI(dsa.DSA):
    """Settings of FYI: those of DSA."""

    presets = dsa.DSA.presets

    def finish(self, recipe: Recipe, at: Site) -> Recipe:
        return flipped(recipe)
