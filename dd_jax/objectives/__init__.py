"""Objectives: scalar pure functions of the synthetic set, one module per idea."""

from dd_jax.objectives.alternating import alternating
from dd_jax.objectives.attention import attention
from dd_jax.objectives.class_by_class import class_by_class
from dd_jax.objectives.combine import weighted_sum
from dd_jax.objectives.discrepancy import Discrepancy, Probe
from dd_jax.objectives.distribution_matching import distribution_matching
from dd_jax.objectives.feature_ridge import feature_ridge
from dd_jax.objectives.gradient_matching import gradient_matching
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.objectives.linearised_ridge import linearised_ridge
from dd_jax.objectives.mean_embedding import mean_embedding, mean_features
from dd_jax.objectives.mirrored import mirrored
from dd_jax.objectives.mmd import kernel_means
from dd_jax.objectives.random_feature_ridge import random_feature_ridge
from dd_jax.objectives.representation_ridge import representation_ridge, representations
from dd_jax.objectives.representative import representative_batches

__all__ = ["Discrepancy", "Probe", "alternating", "attention", "class_by_class",
           "distribution_matching", "feature_ridge", "gradient_matching", "kernel_means",
           "kernel_ridge", "linearised_ridge", "mean_embedding", "mean_features", "mirrored",
           "random_feature_ridge", "representation_ridge", "representations",
           "representative_batches", "weighted_sum"]
