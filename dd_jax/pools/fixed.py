"""One and the same untrained network in every step."""

from __future__ import annotations

import jax

from dd_jax.errors import require_seed
from dd_jax.types import Network, Pool


def fixed_pool(network: Network, *, seed: int) -> Pool:
    """The pool whose every network is `network.init(jax.random.key(seed))`.

    What is distilled for it is of use to that network: test it with the same `start_seed`.

    Args:
      network: the architecture.
      seed: of the initial parameters.

    Returns:
      A `Pool` with an empty state.

    Raises:
      ConfigError: the seed is not a whole number from 0 to 2^32 - 1.

    Example:
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> pool = fixed_pool(nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8), seed=3)
      >>> one, two = (pool.draw((), jax.random.key(i)) for i in range(2))
      >>> bool((one["params"]["head"]["kernel"] == two["params"]["head"]["kernel"]).all())
      True
    """
    require_seed("seed", seed)
    return Pool(
        init=lambda key, synthetic: (),
        draw=lambda state, key: network.init(jax.random.key(seed)),
        advance=lambda state, synthetic, key: state,
    )
