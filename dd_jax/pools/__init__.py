"""Where the networks of one step come from."""

from dd_jax.pools.ageing import AgeingState, ageing_pool, squared_error
from dd_jax.pools.fresh import fresh_pool
from dd_jax.pools.inner_trained import InnerTrainedState, inner_trained_pool
from dd_jax.pools.pretrained import pretrained_pool

__all__ = ["AgeingState", "InnerTrainedState", "ageing_pool", "fresh_pool", "inner_trained_pool",
           "pretrained_pool", "squared_error"]
