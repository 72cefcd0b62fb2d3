"""Losses of a network's outputs against what it is told, one number for each image.

Each is a plain function (logits [B, K], targets) -> [B] with an `Entry` in `LOSSES`; `named` and
`parse` make one of its name and options. What rows of a batch have to do with one another, and what
targets a loss takes, is said by the entry.
"""

from dd_jax.labels.losses.added import WeightedSum, weighted_sum
from dd_jax.labels.losses.plain import (
    cross_entropy,
    integer_cross_entropy,
    mean_squared_error,
    squared_error,
)
from dd_jax.labels.losses.record import Entry, Loss, NamedLoss, require_loss
from dd_jax.labels.losses.table import LOSSES, losses_for, named, parse, require_targets
from dd_jax.labels.losses.targets import KINDS, Taught, fits, require_labels

__all__ = ["KINDS", "LOSSES", "Entry", "Loss", "NamedLoss", "Taught", "WeightedSum",
           "cross_entropy", "fits", "integer_cross_entropy", "losses_for", "mean_squared_error",
           "named", "parse", "require_labels", "require_loss", "require_targets", "squared_error",
           "weighted_sum"]
