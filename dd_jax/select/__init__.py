"""Real images chosen instead of made: looks at each image, rules that choose, budgets."""

from dd_jax.select.budget import Budget, check_budget, counts_of
from dd_jax.select.gradient_selectors import OF_GRADIENTS
from dd_jax.select.greedy_choices import greedy
from dd_jax.select.meta_weights import MetaWeights
from dd_jax.select.reweighting import whole_set_weights
from dd_jax.select.rules import ORDERS
from dd_jax.select.selector import Chosen, Selector, select
from dd_jax.select.selectors import OF_FEATURES

__all__ = ["Budget", "Chosen", "MetaWeights", "OF_FEATURES", "OF_GRADIENTS", "ORDERS", "Selector",
           "check_budget", "counts_of", "greedy", "select", "whole_set_weights"]
