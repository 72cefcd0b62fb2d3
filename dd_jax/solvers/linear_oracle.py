"""Exact distillation of a linear map: one point for each class, from one singular decomposition.

With W = V S U^T [P, K] and any sigma > 0, the set

  F_s = U diag(sigma) V^T,   Y_s = U diag((sigma^2 + lambda) S / sigma) U^T

makes ridge regression with the absolute regulariser lambda return W itself. What a distilled set
can reach at best is thereby known for linear problems.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError
from dd_jax.solvers.system import check_matrix, check_ridge, times


def exact_linear_set(
    weights: jax.Array, *, ridge: float = 1e-6, sigma: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """K points in feature space whose ridge regression is the given linear map.

    Args:
      weights: W, [P, K] with K <= P.
      ridge: lambda of mode "absolute", at least 0.
      sigma: the singular values of the points, positive.

    Returns:
      (features [K, P], targets [K, K]) in the dtype of the weights.

    Raises:
      ConfigError: more outputs than features, negative ridge, sigma not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from dd_jax.solvers import fit_features
      >>> weights = jnp.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
      >>> features, targets = exact_linear_set(weights, ridge=0.1)
      >>> fit = fit_features(features, targets, ridge=0.1, mode="absolute")
      >>> bool(jnp.allclose(fit.weights, weights, atol=1e-5))
      True

    Reference: cf. Chen et al., Provable and Efficient Dataset Distillation for Kernel Ridge
    Regression, NeurIPS 2024.
    """
    check_ridge(ridge, "absolute")
    check_matrix("weights", weights)
    width, outputs = weights.shape
    if outputs > width:
        raise ConfigError(f"weights [{width}, {outputs}] map {width} features to {outputs} "
                          "outputs, expected no more outputs than features",
                          fix="add features, or distil fewer outputs at a time")
    if not 0.0 < sigma < float("inf"):
        raise ConfigError(f"sigma is {sigma!r}, expected a positive number", fix="pass sigma=1.0")
    v, s, u = jnp.linalg.svd(weights, full_matrices=False)
    targets = times(u.T * ((sigma**2 + ridge) * s / sigma), u)
    return sigma * times(u.T, v.T), targets
