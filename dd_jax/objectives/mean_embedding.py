"""The mean features of each class's synthetic images meet those of its real images.

  d = || mean_{x in B} f(x) - mean_{s in S} f(s) ||^2

f are the flattened features of a network.

Source: Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023.
"""

from __future__ import annotations

import jax.numpy as jnp

from dd_jax.objectives.discrepancy import Discrepancy
from dd_jax.objectives.distribution_matching import distribution_matching
from dd_jax.types import Network, Objective, Pool


def mean_features() -> Discrepancy:
    """Squared distance of the means of features [n, P].

    Example:
      >>> mean_features().compare(jnp.zeros(2), jnp.ones(2), None).item()
      2.0
    """

    def compare(real, synthetic, drawn):
        return jnp.sum((real - synthetic) ** 2)

    return Discrepancy(collect=lambda outputs: outputs.features, compare=compare, means=True)


def mean_embedding(network: Network, pool: Pool, **options) -> Objective:
    """DM's objective: `distribution_matching` of `mean_features`, with the options of the former.

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = mean_embedding(network, pools.fresh_pool(network), batch_size=16)
    """
    return distribution_matching(network, pool, mean_features(), **options)
