"""TESLA's constant-memory rule for the gradient of an inner loop, which is biased."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.train.adjoints import Adjoint, full
from dd_jax.types import PyTree


def two_pass() -> Adjoint:
    """Gives every step the adjoint of the last one; memory does not grow with N.

    With carry_{i+1} = carry_i - a g_i(carry_i, shared) the true adjoint of step i is
    lambda_i = (I - a H_i) lambda_{i+1}, H_i the Hessian of the inner loss. This rule takes
    lambda_i = lambda_N throughout:

      d carry_N / d shared := sum_i (d step / d shared at carry_i),   d carry_N / d carry_0 := I.

    It is exact for N = 1 only. For more steps it drops the products of the I - a H_i, hence it is
    biased, unless the inner Hessians are zero; the bias grows with a, N and the curvature. (The
    paper has it as exact.) `recursive` is exact in little more memory.

    The backward pass runs the steps forward again and adds up their derivatives, so that nothing
    is stored but the first carry, `xs` and `shared`. What `step` closes over is differentiated as
    if it were in `shared`; `xs` is not. The carry must be one for which the identity makes sense,
    the parameters of plain gradient descent: momentum and the moments of Adam pass the influence
    of a step on to later ones, and this rule would leave that out.

    Returns:
      An adjoint for first derivatives in reverse mode.

    Example:
      >>> loss = lambda rate, adjoint: adjoint(
      ...     lambda carry, x, rate: carry * (1 - rate), 1.0, jnp.ones(2), rate)
      >>> float(jax.grad(loss)(0.5, two_pass()))  # -1 - 0.5, where the exact one is -0.5 - 0.5
      -1.5

    Reference: Cui et al., Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory,
    ICML 2023.
    """

    def run(step, carry, xs, shared):
        # A custom derivative cannot close over what is differentiated: make that an argument.
        first = jax.eval_shape(lambda xs: jax.tree.map(lambda x: x[0], xs), xs)
        closed, constants = jax.closure_convert(step, carry, first, shared)

        def inner(carry, x, learned):
            return closed(carry, x, learned[0], *learned[1])

        @jax.custom_vjp
        def loop(carry, xs, learned):
            return full()(inner, carry, xs, learned)

        def forward(carry, xs, learned):
            return loop(carry, xs, learned), (carry, xs, learned)

        def backward(saved, cotangent):
            return cotangent, None, _summed(inner, *saved, cotangent)

        loop.defvjp(forward, backward)
        return loop(carry, xs, (shared, constants))

    return run


def _summed(step, carry: PyTree, xs: PyTree, learned: PyTree, cotangent: PyTree) -> PyTree:
    """sum_i (d step / d learned at carry_i)^T cotangent; None for integers and keys."""

    def add(state, x):
        carry, totals = state
        carry, pull = jax.vjp(lambda learned: step(carry, x, learned), learned)
        (more,) = pull(cotangent)
        totals = jax.tree.map(lambda total, new: None if total is None else total + new,
                              totals, more, is_leaf=lambda leaf: leaf is None)
        return (carry, totals), None

    zeros = jax.tree.map(
        lambda x: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else None, learned)
    return jax.lax.scan(add, (carry, zeros), xs)[0][1]
