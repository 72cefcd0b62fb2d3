"""One evaluation for every method: fresh networks, kernel regression, random and full baselines."""

from dd_jax.callable_module import make_callable
from dd_jax.evaluate.build import build_network
from dd_jax.evaluate.checks import own_protocol
from dd_jax.evaluate.evaluate import (
    Evaluation,
    evaluate,
    evaluate_full,
    evaluate_random,
)
from dd_jax.evaluate.progressive import check, equal_budget, evaluate_progressive
from dd_jax.evaluate.protocol import Protocol, for_network, protocol
from dd_jax.evaluate.random_images import budget, has_random
from dd_jax.evaluate.read_out import check_read_out, own_read_out, read_out, read_out_random
from dd_jax.evaluate.settings import ReadOut
from dd_jax.evaluate.supervision import loss_for, supervision_of
from dd_jax.evaluate.transfer import (
    TransferResult,
    check_transfer,
    evaluate_transfer,
    evaluate_transfer_random,
)
from dd_jax.evaluate.transfer_steps import BUDGETS, TransferBudget

__all__ = ["BUDGETS", "Evaluation", "Protocol", "ReadOut", "TransferBudget", "TransferResult",
           "budget", "build_network", "check", "check_read_out", "check_transfer", "equal_budget",
           "evaluate", "evaluate_full", "evaluate_progressive", "evaluate_random",
           "evaluate_transfer", "evaluate_transfer_random", "for_network", "has_random", "loss_for",
           "own_protocol", "own_read_out", "protocol", "read_out", "read_out_random",
           "supervision_of"]

make_callable(__name__, "evaluate")
