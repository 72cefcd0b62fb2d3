"""Training inside or before a distillation: teachers and experts."""

from dd_jax.inner.class_targets import ClassTargets, class_targets
from dd_jax.inner.representatives import representatives
from dd_jax.inner.self_supervised import (
    SELF_SUPERVISED_LOSSES,
    SelfSupervised,
    barlow_twins,
    simsiam,
    train_self_supervised,
)
from dd_jax.inner.teachers import train_supervised
from dd_jax.inner.views import views

__all__ = ["ClassTargets", "SELF_SUPERVISED_LOSSES", "SelfSupervised", "barlow_twins",
           "class_targets", "representatives", "simsiam", "train_self_supervised",
           "train_supervised", "views"]
