"""A linearised network, fitted to the synthetic set by ridge regression, predicts the real labels.

  f(x) = h_omega(x) + phi(x) W,  (omega, W) = argmin L_s(., X_s, Y_s)      (see `linearised`)
  L = mean_b CE( e^tau f(x_b), y_b )  -  mean_i min(top1(Y_s[i]) - top2(Y_s[i]), 1/(2K))

The inner problem is a strictly convex quadratic, so its derivative is implicit:

  d L / d psi = d_psi L  -  d_psi <v, d_omega L_s(omega, psi)>,   H v = d_omega L,

for psi = (X_s, Y_s, tau). Both systems with H are solved by a few Adam steps, or by conjugate
gradients. The implicit part is scaled down, leaf by leaf, to at most the norm of the direct part.

Differs from the official code:
  - the inner loss is collapsed analytically (see `linearised`), at a fraction of the work; the
    ridge system is float64 throughout (an option there, for the solve);
  - every inner run of Adam starts with a new state. There it goes on from that of the network's
    training in the pool, so the iterates are the same for new networks only: at an age of 40 the
    first step is 0.64 rates, and in 20 steps the frozen weights drift by 8.5 rates of the pool;
  - the last layer's kernel is no part of the tangent, neither in the inner problem nor in the
    adjoint system, as in the paper (the code masks it in the inner optimizer, which lets a tiny
    ascent step through, and keeps it in the adjoint system);
  - the solver's rate for v is searched for with the synthetic set in place of a real batch;
  - one in ten inner runs is watched, by repeating it, when their rate is adapted (there all);
  - gradients are of the whole synthetic set and the whole real batch: no sub-sampling of either,
    which the official scripts have for CIFAR-100 with 50 per class, Tiny-ImageNet and ImageNet.

Source: Loo et al., Dataset Distillation with Convexified Implicit Gradients, ICML 2023.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.data import rows_uniform
from dd_jax.errors import ConfigError, unknown
from dd_jax.objectives.feature_ridge import label_margin
from dd_jax.objectives.linearised import (
    InnerProblem,
    OuterValue,
    check_head,
    inner_problem,
    outer_value,
)
from dd_jax.objectives.linearised_gradient import (
    Fit,
    adjoint_side,
    capped,
    fitted,
    gradient_parts,
)
from dd_jax.objectives.matching import check_pool
from dd_jax.solvers.implicit import attach_gradient
from dd_jax.solvers.quadratic import (
    QuadraticSolve,
    adam_quadratic,
    conjugate_gradients,
    probe_rate,
)
from dd_jax.solvers.solver_rate import SolverRate, followed, solver_rate
from dd_jax.synthetic import with_mirrors
from dd_jax.types import Batch, Network, Objective, Pool, PyTree, RealData, SyntheticSet

SOLVERS = ("adam", "cg")
_START_INNER, _START_ADJOINT = 1e-5, 5e-5


class LinearisedState(NamedTuple):
    """State of `linearised_ridge`.

    Attributes:
      pool: of the pool.
      inner: Adam's rate for omega, which follows its runs.
      adjoint: [] float32, Adam's rate for v; found at the start and kept.
    """

    pool: PyTree
    inner: SolverRate
    adjoint: jax.Array


def _margin(labels: jax.Array) -> jax.Array:
    return label_margin(labels, 0.5 / labels.shape[-1])


def _ratio(norm: jax.Array, reference: PyTree) -> jax.Array:
    return norm / jnp.maximum(optax.tree.norm(reference), jnp.finfo(jnp.float32).tiny)


def _check(network: Network, l2_rate: float, solver: str, solver_steps: int) -> None:
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    for label, value in (("l2_rate", l2_rate), ("solver_steps", solver_steps)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"{label} is {value!r}, expected a finite number above 0",
                              fix="pass for example l2_rate=5e-4, solver_steps=20")
    check_head(network)


def linearised_ridge(
    network: Network,
    pool: Pool,
    *,
    batch_size: int = 1024,
    l2_rate: float = 5e-4,
    flip: bool = False,
    solver: str = "adam",
    solver_steps: int = 20,
    cap: bool = True,
    chunk: int | None = None,
) -> Objective:
    """RCIG's objective: implicit gradients of a linearised network's regression, see the module.

    `jax.grad` of its loss is the meta-gradient. That is the gradient of the loss with cap=False and
    enough solver steps; with the cap, or systems solved in part, it is that of no scalar function.

    Adam's rates are searched for at the start: for omega on the first network, for v with the
    synthetic set in place of the real batch. The rate for omega then follows its runs, as
    `solver_rate` says; a watched run is repeated in `advance`.

    Args:
      network: the architecture, its last layer named "head"; in evaluation mode throughout.
      pool: where the network of each step comes from.
      batch_size: real images per step, drawn without replacement.
      l2_rate: lam per synthetic image, lam = l2_rate * M (mirror images not counted).
      flip: whether the set is extended by its mirror images before the regression.
      solver: "adam", or "cg" for conjugate gradients, for both systems.
      solver_steps: steps of each solve.
      cap: whether the implicit part is bounded by the direct one.
      chunk: real images per pass; None for the backend's default.

    Returns:
      An `Objective` over `Batch(images [batch_size, H, W, C], labels [batch_size])` with a
      `LinearisedState`. Where the set has no `log_temperature`, tau is 0 and constant.

    Raises:
      ConfigError: an unknown solver, no steps, an l2_rate that is not positive, a network whose
        last layer is not named "head".

    Example:
      >>> from dd_jax import nets, pools
      >>> from dd_jax.types import DataSpec
      >>> network = nets.mlp(DataSpec("toy", (4, 4, 1), 2, ("a", "b")), width=8)
      >>> objective = linearised_ridge(network, pools.fresh_pool(network), batch_size=16)
    """
    check_pool(pool)
    _check(network, l2_rate, solver, solver_steps)

    ridge = _Ridge(network, pool, batch_size, l2_rate, flip, solver, solver_steps, cap, chunk)
    # Compiled as a whole also where the caller is not: its loops would else be compiled one by one.
    meta_gradient = jax.jit(partial(_meta_gradient, ridge))
    return Objective(
        loss=partial(_loss, meta_gradient),
        init=jax.jit(partial(_init, ridge)),
        sample=partial(_sample, batch_size),
        advance=jax.jit(partial(_advance, ridge)),
    )


@dataclasses.dataclass(frozen=True)
class _Ridge:
    """The checked settings of one `linearised_ridge`, and what they say of its two systems."""

    network: Network
    pool: Pool
    batch_size: int
    l2_rate: float
    flip: bool
    solver: str
    solver_steps: int
    cap: bool
    chunk: int | None

    def extend(self, synthetic: SyntheticSet) -> SyntheticSet:
        """The set, with its mirror images where these take part."""
        return with_mirrors(synthetic) if self.flip else synthetic

    def pose(self, variables: PyTree, synthetic: SyntheticSet) -> InnerProblem:
        """The regression on the set of the network linearised at `variables`."""
        ridge = self.l2_rate * synthetic.labels.shape[0]
        return inner_problem(self.network, variables, self.extend(synthetic), ridge=ridge)

    def solve(self, problem: InnerProblem, rhs: PyTree, rate: jax.Array) -> QuadraticSolve:
        """H x = rhs by the chosen solver; `rate` is Adam's."""
        if self.solver == "cg":
            return conjugate_gradients(problem.hessian, rhs, steps=self.solver_steps)
        return adam_quadratic(problem.hessian, rhs, steps=self.solver_steps, rate=rate)

    def predict(
        self, variables: PyTree, fit: Fit, synthetic: SyntheticSet, batch: Batch
    ) -> OuterValue:
        """The loss of real images under the fitted model, and its cotangents."""
        tau = synthetic.log_temperature
        tau = jnp.zeros((), synthetic.labels.dtype) if tau is None else tau
        return outer_value(self.network, variables, fit.omega, fit.weights, tau, batch,
                           chunk=self.chunk)


def _init(of: _Ridge, key: jax.Array, synthetic: SyntheticSet) -> LinearisedState:
    pool_key, draw_key = jax.random.split(key)
    state = of.pool.init(pool_key, synthetic)
    if of.solver == "cg":
        return LinearisedState(state, solver_rate(0.0), jnp.float32(0.0))
    variables = of.pool.draw(state, draw_key)
    problem = of.pose(variables, synthetic)
    rhs = problem.right_hand_side()
    inner = probe_rate(lambda rate: of.solve(problem, rhs, rate).monitor, _START_INNER)
    fit = fitted(problem, of.solve(problem, rhs, inner).solution)
    # No real batch at hand: any gradient of the right kind serves to find the rate.
    own = Batch(synthetic.images, jnp.argmax(synthetic.labels, axis=-1))
    side, _ = adjoint_side(problem, of.predict(variables, fit, synthetic, own))
    adjoint = probe_rate(lambda rate: of.solve(problem, side, rate).monitor, _START_ADJOINT)
    return LinearisedState(state, solver_rate(inner), adjoint)


def _sample(batch_size: int, data: RealData, state: LinearisedState, key: jax.Array) -> jax.Array:
    return rows_uniform(data, key, batch_size)


def _loss(
    meta_gradient: Callable, synthetic: SyntheticSet, state: LinearisedState, batch: Batch, key
):
    fixed, constant = jax.lax.stop_gradient((synthetic, state))
    value, gradient, metrics = meta_gradient(fixed, constant, batch, key)
    return attach_gradient(value, synthetic, gradient), metrics


def _meta_gradient(
    of: _Ridge, synthetic: SyntheticSet, state: LinearisedState, batch: Batch, key: jax.Array
):
    """(loss, its gradient in the set, metrics); the gradient is not that of `jax.grad`."""
    variables = of.pool.draw(state.pool, key)
    problem = of.pose(variables, synthetic)
    rhs = problem.right_hand_side()
    inner = of.solve(problem, rhs, state.inner.rate)
    fit = fitted(problem, inner.solution)
    outer = of.predict(variables, fit, synthetic, batch)
    side, beta = adjoint_side(problem, outer)
    adjoint = of.solve(problem, side, state.adjoint)
    direct, implicit = gradient_parts(
        of.network, variables, synthetic, of.extend,
        problem=problem, fit=fit, outer=outer, beta=beta, v=adjoint.solution,
    )
    margin, slope = jax.value_and_grad(_margin)(synthetic.labels)
    direct = direct._replace(labels=direct.labels - slope)
    metrics = {
        "cross_entropy": outer.loss,
        "accuracy": outer.accuracy,
        "label_margin": margin,
        "inner_rate": state.inner.rate,
        "inner_residual": _ratio(inner.residual, rhs),
        "adjoint_residual": _ratio(adjoint.residual, side),
        "implicit_ratio": _ratio(optax.tree.norm(implicit.images), direct.images),
        "jitter_steps": problem.jitter_steps,
    }
    implicit = capped(implicit, direct) if of.cap else implicit
    return outer.loss - margin, jax.tree.map(jnp.add, direct, implicit), metrics


def _advance(
    of: _Ridge, synthetic: SyntheticSet, state: LinearisedState, batch: Batch, key: jax.Array
) -> LinearisedState:
    def watched(rate):
        problem = of.pose(of.pool.draw(state.pool, key), synthetic)
        return of.solve(problem, problem.right_hand_side(), rate).monitor

    inner = followed(state.inner, watched) if of.solver == "adam" else state.inner
    return state._replace(pool=of.pool.advance(state.pool, synthetic, key), inner=inner)
