"""The gradient of an outer loss through the fit of a linearised network, in its two parts.

With alpha = A^{-1} (Y - h_omega), W = Phi^T alpha, the cotangents W_ and omega_ of the outer loss,
v the solution of H v = omega_ - J^T beta, and

  beta = A^{-1} Phi W_,   gamma = A^{-1} h_v,   S(b) = b alpha^T + alpha b^T,

the cotangents of what the synthetic set enters by are (derived; those of the implicit part are the
gradient of -<v, d_omega L_s> = c <Y - h_omega, A^{-1} h_v> - c <omega, v>, with v fixed)

             Phi                       h_omega      h_v         Y
  direct     alpha W_^T - S(beta) Phi  -beta        0           beta
  implicit   -c S(gamma) Phi           -c gamma     c alpha     c gamma

and one reverse pass through the features and two tangents serves each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dd_jax.objectives.linearised import InnerProblem, OuterValue, linearise
from dd_jax.solvers.system import times, wide_dtype, widened
from dd_jax.types import Network, PyTree, SyntheticSet


class Fit(NamedTuple):
    """A fitted model: omega, alpha = A^{-1} (Y - h_omega) [n, K], W = Phi^T alpha [P, K]."""

    omega: PyTree
    alpha: jax.Array
    weights: jax.Array


def fitted(problem: InnerProblem, omega: PyTree) -> Fit:
    """The best last layer for a given omega."""
    alpha = problem.solve(problem.labels - problem.forward(omega))
    return Fit(omega, alpha, problem.read_out(alpha))


def adjoint_side(problem: InnerProblem, outer: OuterValue) -> tuple[PyTree, jax.Array]:
    """The gradient in omega with W eliminated, and beta [n, K]."""
    with widened():  # a right-hand side rounded to float32 would be amplified by the inverse
        wide = wide_dtype()
        right = times(problem.features.astype(wide), outer.weights.astype(wide))
        beta = times(problem.inverse, right).astype(problem.labels.dtype)
    return jax.tree.map(jnp.subtract, outer.omega, problem.backward(beta)), beta


def gradient_parts(
    network: Network,
    variables: PyTree,
    synthetic: SyntheticSet,
    extend: Callable[[SyntheticSet], SyntheticSet],
    *,
    problem: InnerProblem,
    fit: Fit,
    outer: OuterValue,
    beta: jax.Array,
    v: PyTree,
) -> tuple[SyntheticSet, SyntheticSet]:
    """The direct and the implicit part of the gradient in the synthetic set.

    Args:
      network, variables: theta.
      synthetic: the set, without its mirror images.
      extend: adds them, or does nothing.
      problem, fit, outer: of this set and network.
      beta: from `adjoint_side`.
      v: the solution of H v = `adjoint_side`.

    Returns:
      (direct, implicit), each a tree like `synthetic`; their sum is the gradient.
    """
    def used(synthetic):
        support = extend(synthetic)
        tangent, features = linearise(network, variables, support.images)
        return features, tangent(fit.omega), tangent(v), support.labels

    (features, _, h_v, _), pull = jax.vjp(used, synthetic)
    alpha, scale = fit.alpha, problem.scale
    gamma = scale * problem.solve(h_v)

    def through_inverse(b):
        return -times(b, times(alpha.T, features)) - times(alpha, times(b.T, features))

    direct_features = times(alpha, outer.weights.T) + through_inverse(beta)
    (direct,) = pull((direct_features, -beta, jnp.zeros_like(beta), beta))
    (implicit,) = pull((through_inverse(gamma), -gamma, scale * alpha, gamma))
    if synthetic.log_temperature is not None:
        direct = direct._replace(log_temperature=outer.log_temperature)
    return direct, implicit


def capped(tree: PyTree, reference: PyTree) -> PyTree:
    """Each leaf of `tree`, scaled down to at most the norm of the same leaf of `reference`.

    Example:
      >>> import jax.numpy as jnp
      >>> capped({"a": jnp.array([0.0, 4.0])}, {"a": jnp.array([1.0, 0.0])})["a"].tolist()
      [0.0, 1.0]
    """
    def one(x, r):
        norm, bound = jnp.linalg.norm(x.ravel()), jnp.linalg.norm(r.ravel())
        over = norm > bound
        return x * jnp.where(over, bound / jnp.where(over, norm, 1.0), 1.0)  # never 0 / 0

    return jax.tree.map(one, tree, reference)
