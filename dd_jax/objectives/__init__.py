"""Objectives: scalar pure functions of the synthetic set, one module per idea."""

from dd_jax.objectives.combine import weighted_sum
from dd_jax.objectives.feature_ridge import feature_ridge
from dd_jax.objectives.gradient_matching import gradient_matching
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.objectives.linearised_ridge import linearised_ridge
from dd_jax.objectives.mean_embedding import mean_embedding
from dd_jax.objectives.mirrored import mirrored
from dd_jax.objectives.random_feature_ridge import random_feature_ridge
from dd_jax.objectives.representation_ridge import representation_ridge, representations
from dd_jax.objectives.representative import representative_batches

__all__ = ["feature_ridge", "gradient_matching", "kernel_ridge", "linearised_ridge",
           "mean_embedding", "mirrored", "random_feature_ridge", "representation_ridge",
           "representations", "representative_batches", "weighted_sum"]
