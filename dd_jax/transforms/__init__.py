"""Own optax transformations: pixel space, learned rates, capped and projected updates."""

from dd_jax.transforms.capped_gradient import CappedState, capped_gradient
from dd_jax.transforms.momentum import decayed_momentum
from dd_jax.transforms.pixel_space import in_pixel_space, kept_between, projected, within_range
from dd_jax.transforms.pull import PullState, pull_to_start
from dd_jax.transforms.rate_space import in_rate_space, skipped_above
from dd_jax.transforms.restart import RestartState, restarted_at
from dd_jax.transforms.simplex import kept_probabilities

__all__ = ["CappedState", "PullState", "RestartState", "capped_gradient", "decayed_momentum",
           "in_pixel_space", "in_rate_space", "kept_between", "kept_probabilities", "projected",
           "pull_to_start", "restarted_at", "skipped_above", "within_range"]
