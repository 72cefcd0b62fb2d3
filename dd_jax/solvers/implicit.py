"""Derivatives of a minimiser by the implicit function theorem, without a matrix and a history.

For omega*(psi) = argmin_omega L(omega, psi), L strongly convex in omega, and an outer loss f:

  d f / d psi = d_psi f  -  d_psi < v, d_omega L(omega*, psi) >,    H v = d_omega f,

with H the Hessian of L in omega, whose products are one forward over one reverse derivative. The
rule is exact at the minimum only: watch the residual ||d_omega L||.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dd_jax.types import PyTree


def implicit(
    inner_loss: Callable[[PyTree, PyTree], jax.Array],
    minimise: Callable[[PyTree, PyTree], PyTree],
    *,
    solve: Callable[[Callable[[PyTree], PyTree], PyTree], PyTree],
) -> Callable[[PyTree, PyTree], tuple[PyTree, jax.Array]]:
    """Makes the minimiser of a strongly convex loss a differentiable function.

    Args:
      inner_loss: L, (omega, psi) -> scalar; twice differentiable. Whatever it closes over is a
        constant: all that a gradient is wanted for has to be in psi.
      minimise: (psi, start) -> omega, any solver; it is never differentiated.
      solve: (matvec, g) -> v with H v = g, for example
        `lambda h, g: conjugate_gradients(h, g, steps=20).solution`.

    Returns:
      A function (psi, start) -> (omega, residual): omega is differentiable in psi, in reverse mode,
      by the implicit function theorem and constant in `start`; residual is ||d_omega L||, [], a
      metric without derivative.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from dd_jax.solvers.quadratic import conjugate_gradients
      >>> loss = lambda omega, psi: 0.5 * jnp.sum((omega - psi) ** 2) + 0.5 * jnp.sum(omega**2)
      >>> solved = implicit(loss, lambda psi, start: psi / 2,
      ...                   solve=lambda h, g: conjugate_gradients(h, g, steps=2).solution)
      >>> jax.grad(lambda psi: jnp.sum(solved(psi, None)[0]))(jnp.ones(3)).tolist()
      [0.5, 0.5, 0.5]
    """
    slope = jax.grad(inner_loss)

    @jax.custom_vjp
    def solved(psi, start):
        omega = minimise(psi, start)
        return omega, optax.tree.norm(slope(omega, psi))

    def forward(psi, start):
        out = solved(psi, start)
        return out, (out[0], psi, start)

    def backward(saved, cotangent):
        omega, psi, start = saved
        # One linearisation serves every product with H.
        _, hessian = jax.linearize(lambda w: slope(w, psi), omega)
        v = solve(hessian, cotangent[0])
        _, pull = jax.vjp(lambda p: slope(omega, p), psi)
        (psi_bar,) = pull(jax.tree.map(jnp.negative, v))
        # `pull` knows the cotangent types of leaves that are not floating point.
        _, nothing = jax.vjp(lambda s: jnp.zeros(()), start)
        return psi_bar, nothing(jnp.zeros(()))[0]

    solved.defvjp(forward, backward)
    return solved


@jax.custom_vjp
def attach_gradient(value: jax.Array, tree: PyTree, gradient: PyTree) -> jax.Array:
    """A scalar whose derivative in `tree` is a given one: for gradients of no scalar function.

    Forward: `value`. Backward: `gradient` times the cotangent for `tree`, zero for the others.

    Args:
      value: [] float.
      tree: what the gradient is for; floating-point leaves.
      gradient: a tree like `tree`.

    Returns:
      `value`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.grad(lambda x: 3 * attach_gradient(jnp.float32(7.0), x, 2 * x))(jnp.ones(2)).tolist()
      [6.0, 6.0]
    """
    del tree, gradient
    return value


def _attach_forward(value, tree, gradient):
    del tree
    return value, gradient


def _attach_backward(gradient, cotangent):
    scaled = jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), gradient)
    return jnp.zeros_like(cotangent), scaled, optax.tree.zeros_like(gradient)


attach_gradient.defvjp(_attach_forward, _attach_backward)
