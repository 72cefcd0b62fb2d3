"""GradMatch: few images whose weighted gradients sum to the mean gradient of all.

  b = mean_i G_i,   min_w | b - sum_{i in S} w_i G_i |^2 + lam | w |^2

by orthogonal matching pursuit. The next image is the one along which most is missing,
argmax_x <G_x, b - sum_S w G>, then all weights are solved for anew: (K_SS + lam I) w = beta_S with
K_ij = <G_i, G_j> and beta_i = <G_i, b>. At last the same is minimised over w >= 0.

What is missing is one matrix [K, P + 1], so a step takes O(n K P) time, no column of K has to be
kept, and the matrix of all pairs is never made. The images are compared in float32; the chosen
ones' m x m system is in float64, and its Cholesky factor grows by a row with each choice.

Source: Killamsetty et al., GRAD-MATCH, ICML 2021.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.select.gradients import LastLayer, along, masked, weighted_sum
from dd_jax.select.selector import Chosen

_LEAST_PIVOT = 1e-12  # of an image's own square, where gradients depend on one another


def gradient_matching(
    seen: LastLayer, valid: jax.Array, count: int, key: jax.Array | None = None, *,
    ridge: float = 1.0,
) -> Chosen:
    """Orthogonal matching pursuit of the mean gradient.

    Args:
      seen: of [n] images, see `gradients.LastLayer`.
      valid, count, key: as for `Selector.choose`.
      ridge: lam, at least 0.

    Returns:
      `Chosen`; weights are at least 0 with a mean of 1. An image whose weight is 0 keeps its place,
      so that there are as many as were asked for. Where no gradient is along the mean, all are 1.

    Example:
      >>> error = jnp.array([[1.0, -1.0], [0.1, -0.1], [3.0, -3.0], [0.5, -0.5]])
      >>> found = gradient_matching(LastLayer(error, jnp.zeros((4, 1))), jnp.ones(4, bool), 2)
      >>> found.rows.tolist(), found.weights.round(2).tolist()
      ([2, 0], [1.5, 0.5])
    """
    seen, left = masked(seen, valid), np.array(valid)
    target = weighted_sum(seen, jnp.asarray(left / left.sum(), jnp.float32))
    pursuit = _Pursuit(np.asarray(target, np.float64), count, ridge)
    weights = np.zeros(len(left), np.float32)
    places = np.zeros(count, np.int32)
    for i in range(count):
        missing = np.asarray(_missing_along(seen, target, jnp.asarray(weights)))
        places[i] = np.argmax(np.where(left, missing, -np.inf))
        left[places[i]] = False
        pursuit.add(*(np.asarray(x[places[i]], np.float64) for x in seen))
        weights[places[: i + 1]] = pursuit.solved()
    final = pursuit.solved_above_zero()
    final = final / final.mean() if final.sum() > 0 else np.ones(count)
    return Chosen(jnp.asarray(places), jnp.asarray(final, jnp.float32))


@jax.jit
def _missing_along(seen, target, weights):
    return along(seen, target - weighted_sum(seen, weights))


class _Pursuit:
    """The system of the chosen images, float64 on the host, by its Cholesky factor."""

    def __init__(self, target: np.ndarray, count: int, ridge: float):
        self.target, self.ridge, self.size = target, ridge, 0
        self.factor, self.beta = np.zeros((count, count)), np.zeros(count)
        self.error = np.zeros((count, target.shape[0]))
        self.inputs = np.zeros((count, target.shape[1] - 1))

    def add(self, error: np.ndarray, inputs: np.ndarray) -> None:
        """One image more."""
        from scipy.linalg import solve_triangular

        m = self.size
        self.error[m], self.inputs[m] = error, inputs
        column = (self.error[: m + 1] @ error) * (1 + self.inputs[: m + 1] @ inputs)
        row = solve_triangular(self.factor[:m, :m], column[:m], lower=True) if m else column[:0]
        square = column[m] + self.ridge
        pivot = max(square - row @ row, _LEAST_PIVOT * square, np.finfo(float).tiny)
        self.factor[m, :m], self.factor[m, m] = row, np.sqrt(pivot)
        self.beta[m] = error @ (self.target[:, :-1] @ inputs + self.target[:, -1])
        self.size += 1

    def _forward(self) -> tuple[np.ndarray, np.ndarray]:
        """L and L^{-1} beta."""
        from scipy.linalg import solve_triangular

        factor = self.factor[: self.size, : self.size]
        return factor, solve_triangular(factor, self.beta[: self.size], lower=True)

    def solved(self) -> np.ndarray:
        """(K_SS + lam I)^{-1} beta."""
        from scipy.linalg import solve_triangular

        factor, half = self._forward()
        return solve_triangular(factor, half, lower=True, trans=1)

    def solved_above_zero(self) -> np.ndarray:
        """argmin_{w >= 0} w^T (K_SS + lam I) w - 2 beta^T w, up to a factor above 0.

        That is | L^T w - L^{-1} beta |^2 of m rows. L^{-1} beta is made 1 long for the tolerance of
        the solver, which is absolute.
        """
        from scipy.optimize import nnls

        factor, half = self._forward()
        length = np.linalg.norm(half)
        if length == 0:
            return half
        return nnls(factor.T, half / length, maxiter=max(100, 10 * self.size))[0]
