"""Training inside or before a distillation: unrolled loops, teachers and experts."""

from dd_jax.train.adjoints import checkpointed, full, recursive, truncated
from dd_jax.train.class_targets import ClassTargets, class_targets
from dd_jax.train.expert_rules import ExpertRule, sharpness_aware, smooth
from dd_jax.train.experts import train_expert, unflatten
from dd_jax.train.plans import batch_plan, class_rows, permuted, stored_order
from dd_jax.train.representatives import representatives
from dd_jax.train.self_supervised import (
    SELF_SUPERVISED_LOSSES,
    SelfSupervised,
    barlow_twins,
    simsiam,
    train_self_supervised,
)
from dd_jax.train.student import Student, student
from dd_jax.train.teachers import train_supervised
from dd_jax.train.training_step import StepInput, training_step
from dd_jax.train.two_pass import two_pass
from dd_jax.train.unroll import ADJOINTS, adjoint_by_name, unroll

__all__ = ["ADJOINTS", "ClassTargets", "ExpertRule", "SELF_SUPERVISED_LOSSES", "SelfSupervised",
           "StepInput", "Student", "adjoint_by_name", "barlow_twins", "batch_plan", "checkpointed",
           "class_rows", "class_targets", "full", "permuted", "recursive",
           "representatives", "sharpness_aware", "simsiam", "smooth", "stored_order", "student",
           "train_expert", "train_self_supervised", "train_supervised", "training_step",
           "truncated", "two_pass", "unflatten", "unroll"]
