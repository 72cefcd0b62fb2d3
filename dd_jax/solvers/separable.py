"""A sum of losses that share nothing but constants, with the memory of one of them.

  L(x_1, ..., x_K) = sum_k l(x_k),   dL/dx_k = l'(x_k)

Because the parts are separate, each part's derivative is known as soon as its value is: both are
computed together, part after part, and only the derivatives are kept. Nothing is recomputed and no
activation waits for the backward pass, so memory does not grow with K.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.backend import map_over
from dd_jax.types import PyTree


def separable_sum(
    loss: Callable[[PyTree, PyTree, PyTree], jax.Array],
    shared: PyTree,
    learned: PyTree,
    others: PyTree,
    *,
    how: str = "auto",
) -> jax.Array:
    """Sums a loss over parts; differentiable, in reverse mode, in what is learned and only there.

    Args:
      loss: (shared, learned[k], others[k]) -> scalar. All traced values that it uses have to be
        among its arguments.
      shared: constants of all parts, such as a network's variables.
      learned: pytree of [K, ...] float.
      others: pytree of [K, ...], constants of each part.
      how: "map", "vmap" or "auto": part after part, or all at once.

    Returns:
      The sum, [].

    Example:
      >>> def loss(scale, x, _):
      ...     return scale * jnp.sum(x**2)
      >>> jax.grad(lambda x: separable_sum(loss, 3.0, x, ()))(jnp.ones((2, 1))).tolist()
      [[6.0], [6.0]]
    """

    @jax.custom_vjp
    def total(shared, learned, others):
        return jnp.sum(map_over(lambda part: loss(shared, *part), (learned, others), how=how))

    def forward(shared, learned, others):
        def part(args):
            return jax.value_and_grad(loss, argnums=1)(shared, *args)

        values, gradients = map_over(part, (learned, others), how=how)
        return jnp.sum(values), (shared, others, gradients)

    def backward(saved, cotangent):
        shared, others, gradients = saved
        # This knows the cotangent types of leaves that are not floating point.
        _, nothing = jax.vjp(lambda *constants: jnp.zeros(()), shared, others)
        nothing_shared, nothing_others = nothing(jnp.zeros(()))
        scaled = jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), gradients)
        return nothing_shared, scaled, nothing_others

    total.defvjp(forward, backward)
    return total(shared, learned, others)
