"""Objectives: scalar pure functions of the synthetic set, one module per idea."""

from dd_jax.objectives.combine import weighted_sum
from dd_jax.objectives.feature_ridge import feature_ridge
from dd_jax.objectives.mean_embedding import mean_embedding

__all__ = ["feature_ridge", "mean_embedding", "weighted_sum"]
