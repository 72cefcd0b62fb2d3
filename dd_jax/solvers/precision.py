"""A function evaluated and differentiated in float64 inside a float32 program."""

from __future__ import annotations

from collections.abc import Callable

import jax

from dd_jax.solvers.system import wide_dtype, widened


def in_float64(fn: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """`fn` with its argument widened; forward and backward pass both run in float64.

    Casting the result of a float32 function afterwards would keep its rounding errors: a small
    Gram matrix whose inverse is needed has to be computed wide from the start.

    Args:
      fn: pure function of one float array that follows its argument's dtype; it may close over
        constants, but not over values that are differentiated.

    Returns:
      A function of the same argument whose result is float64 (float32 on a TPU), for a consumer
      that expects it, such as `fit_kernel`; its cotangent comes back in the argument's dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> str(in_float64(lambda x: x @ x.T)(jnp.ones((2, 3))).dtype)
      'float64'
    """

    def forward(x):
        with widened():
            out, pull = jax.vjp(fn, x.astype(wide_dtype()))
            return out, (x[:0], pull)

    def backward(saved, cotangent):
        like, pull = saved
        with widened():
            return (pull(cotangent.astype(wide_dtype()))[0].astype(like.dtype),)

    @jax.custom_vjp
    def wide(x):
        with widened():
            return fn(x.astype(wide_dtype()))

    wide.defvjp(forward, backward)
    return wide
