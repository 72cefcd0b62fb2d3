"""One evaluation for every method: fresh networks, random and full-data baselines."""

from dd_jax.callable_module import make_callable
from dd_jax.evaluate.evaluate import (
    Evaluation,
    evaluate,
    evaluate_full,
    evaluate_random,
    loss_for,
)
from dd_jax.evaluate.protocol import Protocol, build_network, for_network

__all__ = ["Evaluation", "Protocol", "build_network", "evaluate", "evaluate_full",
           "evaluate_random", "for_network", "loss_for"]

make_callable(__name__, "evaluate")
