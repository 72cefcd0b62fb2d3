"""Training inside or before a distillation: unrolled loops, teachers and experts."""

from dd_jax.train.adjoints import checkpointed, full, recursive, truncated
from dd_jax.train.batches import Batches, permuted_epochs, planned, random_batches
from dd_jax.train.class_targets import ClassTargets, class_targets
from dd_jax.train.expert_rules import ExpertRule, sharpness_aware, smooth
from dd_jax.train.experts import train_expert, unflatten
from dd_jax.train.fit import Fitted, augmented, fit, rows_of
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
from dd_jax.train.teachers import real_images, train_supervised
from dd_jax.train.training_step import StepInput, training_step
from dd_jax.train.two_pass import two_pass
from dd_jax.train.unroll import ADJOINTS, adjoint_by_name, unroll

__all__ = ["ADJOINTS", "Batches", "ClassTargets", "ExpertRule", "Fitted", "SELF_SUPERVISED_LOSSES",
           "SelfSupervised", "StepInput", "Student", "adjoint_by_name", "augmented", "barlow_twins",
           "batch_plan", "checkpointed", "class_rows", "class_targets", "fit", "full", "permuted",
           "permuted_epochs", "planned", "random_batches", "real_images", "recursive",
           "representatives", "rows_of", "rs2", "rs2_rows", "rs2_size", "rs2_steps",
           "sharpness_aware", "simsiam", "smooth", "stored_order", "student", "train_expert",
           "train_self_supervised", "train_supervised", "training_step", "truncated", "two_pass",
           "unflatten", "unroll"]
