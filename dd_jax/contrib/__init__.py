"""Parts that no method of the library uses yet, under the same laws as the others.

A part moves to the room where it belongs when a method needs it.
"""

from dd_jax.contrib.bases import hallucinated
from dd_jax.contrib.empirical import empirical_ntk, empirical_ntk_matrix, linearised
from dd_jax.contrib.features import feature_kernel, network_features, random_feature_kernel
from dd_jax.contrib.fit_stream import fit_stream
from dd_jax.contrib.forward_gradient import forward_gradient
from dd_jax.contrib.frequency import frequency, frequency_masks
from dd_jax.contrib.leave_one_out import LeaveOneOut, leave_one_out

__all__ = ["LeaveOneOut", "empirical_ntk", "empirical_ntk_matrix", "feature_kernel", "fit_stream",
           "forward_gradient", "frequency", "frequency_masks", "hallucinated", "leave_one_out",
           "linearised", "network_features", "random_feature_kernel"]
