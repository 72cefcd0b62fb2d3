"""The synthetic set and its mirror image enter a loss together.

Source: Son et al., FYI: Flip Your Images for Dataset Distillation, ECCV 2024.
"""

from __future__ import annotations

import jax

from dd_jax.objectives.combine import wrapped_variants
from dd_jax.synthetic import with_mirrors
from dd_jax.types import Objective, SyntheticSet


def mirrored(objective: Objective) -> Objective:
    """FYI: the objective of the set together with its mirror images; real data stay as they are.

    What is stored does not grow; gradients reach an image from both halves.

    Args:
      objective: any, of images whose left-right mirror image has the same label (no digits).

    Returns:
      An `Objective` with the state, rows, metrics and traits of the other one.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.objectives import mean_embedding
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> flipped = mirrored(mean_embedding(network, pools.fresh_pool(network), batch_size=16))
    """

    def init(key: jax.Array, synthetic: SyntheticSet):
        return objective.init(key, with_mirrors(synthetic))

    def loss(synthetic: SyntheticSet, state, batch, key: jax.Array):
        return objective.loss(with_mirrors(synthetic), state, batch, key)

    def advance(synthetic: SyntheticSet, state, batch, key: jax.Array):
        return objective.advance(with_mirrors(synthetic), state, batch, key)

    return objective._replace(init=init, loss=loss, advance=advance,
                              variants=wrapped_variants((objective,), mirrored))
