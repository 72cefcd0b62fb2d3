"""A new random network every step."""

from __future__ import annotations

from dd_jax.types import Network, Pool


def fresh_pool(network: Network) -> Pool:
    """The pool that draws an untrained network each time and keeps nothing.

    Args:
      network: the architecture.

    Returns:
      A `Pool` with an empty state.

    Example:
      >>> import jax
      >>> from dd_jax import nets
      >>> from dd_jax.types import DataSpec
      >>> pool = fresh_pool(nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8))
      >>> variables = pool.draw(pool.init(jax.random.key(0), None), jax.random.key(1))
      >>> sorted(variables["params"])
      ['head', 'hidden0', 'hidden1']
    """
    return Pool(
        init=lambda key, synthetic: (),
        draw=lambda state, key: network.init(key),
        advance=lambda state, synthetic, key: state,
    )
