"""Where the networks of one step come from."""

from dd_jax.pools.ageing import AgeingState, ageing_pool
from dd_jax.pools.bank import BankState, bank_pool, train_bank
from dd_jax.pools.fixed import fixed_pool
from dd_jax.pools.fresh import fresh_pool
from dd_jax.pools.inner_trained import InnerTrainedState, inner_trained_pool
from dd_jax.pools.plateau import PlateauState, plateau_pool
from dd_jax.pools.pretrained import pretrained_pool
from dd_jax.pools.queue import QueueState, queue_pool
from dd_jax.pools.restarting import RestartingState, restarting_pool

__all__ = ["AgeingState", "BankState", "InnerTrainedState", "PlateauState", "QueueState",
           "RestartingState", "ageing_pool", "bank_pool", "fixed_pool", "fresh_pool",
           "inner_trained_pool", "plateau_pool", "pretrained_pool", "queue_pool", "restarting_pool",
           "train_bank"]
