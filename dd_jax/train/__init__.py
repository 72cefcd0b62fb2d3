"""Training inside or before a distillation: unrolled loops, teachers and experts."""

from dd_jax.train.adjoints import checkpointed, full, recursive, truncated
from dd_jax.train.batches import Batches, permuted_epochs, planned, random_batches
from dd_jax.train.class_targets import ClassTargets, class_targets
from dd_jax.train.expert_rules import ExpertRule, sharpness_aware, smooth
from dd_jax.train.experts import train_expert, unflatten
from dd_jax.train.fit import Fitted, augmented, fit, rows_of
from dd_jax.train.losses import (
    LOSSES,
    cross_entropy,
    integer_cross_entropy,
    mean_squared_error,
    squared_error,
)
from dd_jax.train.plans import batch_plan, class_rows, permuted, stored_order
from dd_jax.train.representatives import representatives
from dd_jax.train.rs2 import rs2, rs2_rows, rs2_size, rs2_steps
from dd_jax.train.self_supervised import (
    SELF_SUPERVISED_LOSSES,
    SelfSupervised,
    barlow_twins,
    simsiam,
    train_self_supervised,
)
from dd_jax.train.student import Student, student
from dd_jax.train.supervision import Supervision, Views, own_labels, stored_targets, teacher
from dd_jax.train.teachers import real_images, train_supervised
from dd_jax.train.training_step import StepInput, training_step
from dd_jax.train.two_pass import two_pass
from dd_jax.train.unroll import ADJOINTS, adjoint_by_name, unroll

__all__ = ["ADJOINTS", "Batches", "ClassTargets", "ExpertRule", "Fitted", "LOSSES",
           "SELF_SUPERVISED_LOSSES", "SelfSupervised", "StepInput", "Student", "Supervision",
           "Views", "adjoint_by_name", "augmented", "barlow_twins", "batch_plan", "checkpointed",
           "class_rows", "class_targets", "cross_entropy", "fit", "full", "integer_cross_entropy",
           "mean_squared_error", "own_labels", "permuted", "permuted_epochs", "planned",
           "random_batches", "real_images", "recursive", "representatives", "rows_of", "rs2",
           "rs2_rows", "rs2_size", "rs2_steps", "sharpness_aware", "simsiam", "smooth",
           "squared_error", "stored_order", "stored_targets", "student", "teacher", "train_expert",
           "train_self_supervised", "train_supervised", "training_step", "truncated", "two_pass",
           "unflatten", "unroll"]
