"""Training inside or before a distillation: teachers and experts."""

from dd_jax.inner.representatives import representatives
from dd_jax.inner.self_supervised import (
    SELF_SUPERVISED_LOSSES,
    SelfSupervised,
    barlow_twins,
    simsiam,
    train_self_supervised,
)
from dd_jax.inner.views import views

__all__ = ["SELF_SUPERVISED_LOSSES", "SelfSupervised", "barlow_twins", "representatives", "simsiam",
           "train_self_supervised", "views"]
