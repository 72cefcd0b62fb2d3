"""Objectives: scalar pure functions of the synthetic set, one module per idea."""

from dd_jax.objectives.alternating import alternating
from dd_jax.objectives.attention import attention
from dd_jax.objectives.barycentre_matching import barycentre_matching
from dd_jax.objectives.characteristic import characteristic_function
from dd_jax.objectives.class_by_class import class_by_class
from dd_jax.objectives.classification import classification
from dd_jax.objectives.combine import weighted_sum
from dd_jax.objectives.compared import compared
from dd_jax.objectives.conditioned import conditioned
from dd_jax.objectives.discrepancy import Discrepancy, Probe
from dd_jax.objectives.distribution_matching import distribution_matching
from dd_jax.objectives.feature_ridge import feature_ridge
from dd_jax.objectives.frequencies import learned_frequencies, normal_frequencies
from dd_jax.objectives.gradient_matching import gradient_matching
from dd_jax.objectives.kernel_ridge import kernel_ridge
from dd_jax.objectives.layer_matching import layer_matching
from dd_jax.objectives.linearised_ridge import linearised_ridge
from dd_jax.objectives.mean_embedding import mean_embedding, mean_features
from dd_jax.objectives.mirrored import mirrored
from dd_jax.objectives.mmd import kernel_means
from dd_jax.objectives.random_feature_ridge import random_feature_ridge
from dd_jax.objectives.representation_ridge import representation_ridge, representations
from dd_jax.objectives.representative import representative_batches
from dd_jax.objectives.trajectory_loss import endpoint, nearest, waypoints
from dd_jax.objectives.trajectory_matching import trajectory_matching
from dd_jax.objectives.unrolled import UnrolledState, unrolled
from dd_jax.train.segments import Segment, Segments, StartEpochs
from dd_jax.train.window import RandomWindow

__all__ = ["Discrepancy", "Probe", "RandomWindow", "Segment", "Segments", "StartEpochs",
           "UnrolledState", "alternating", "attention", "barycentre_matching",
           "characteristic_function", "class_by_class", "classification", "compared", "conditioned",
           "distribution_matching", "endpoint", "feature_ridge", "gradient_matching",
           "kernel_means", "kernel_ridge", "layer_matching", "learned_frequencies",
           "linearised_ridge", "mean_embedding", "mean_features", "mirrored", "nearest",
           "normal_frequencies", "random_feature_ridge", "representation_ridge", "representations",
           "representative_batches", "trajectory_matching", "unrolled", "waypoints", "weighted_sum"]
