"""Inner-loop training, where how to differentiate it is an argument."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dd_jax.errors import ConfigError, unknown
from dd_jax.train.adjoints import Adjoint, Step, checkpointed, full, recursive, truncated
from dd_jax.train.two_pass import two_pass
from dd_jax.types import PyTree

_TAKEN = {"full": (), "checkpointed": ("every",), "recursive": ("levels",),
          "truncated": ("window", "every"), "two_pass": ()}
ADJOINTS = tuple(_TAKEN)


def unroll(
    step: Step,
    carry: PyTree,
    xs: PyTree,
    shared: PyTree,
    *,
    adjoint: Adjoint | None = None,
) -> PyTree:
    """Runs N steps of training, carry_{i+1} = step(carry_i, xs_i, shared), and returns carry_N.

    Gradients reach `carry` and `shared`. `xs` is what tells the steps apart, and whether an adjoint
    differentiates it is left to the adjoint: do not rely on it.

    Args:
      step: (carry, x, shared) -> carry of the same tree, shapes and dtypes; pure, x one row of xs.
      carry: the state of the loop, for example (parameters, state of the optimizer).
      xs: pytree with a leading axis of length N: rows of the set, typed PRNG keys, masks.
      shared: what every step sees and the gradient is wanted in: the synthetic set with its rate.
      adjoint: what is kept for the derivative and what it leaves out, see `dd_jax.train.adjoints`;
        `checkpointed()` by default.

    Returns:
      carry_N; carry itself for N = 0.

    Raises:
      ConfigError: `xs` has no arrays, or their leading axes differ.

    Example:
      >>> def step(weight, x, shared):
      ...     return weight - shared["rate"] * (weight - shared["target"])
      >>> loss = lambda shared: unroll(step, 0.0, jnp.arange(2), shared, adjoint=recursive())
      >>> jax.grad(loss)({"rate": 0.5, "target": 1.0})  # of target (1 - (1 - rate)^2)
      {'rate': Array(1., dtype=float32, weak_type=True), 'target': Array(0.75, ...)}
    """
    shapes = [jnp.shape(x) for x in jax.tree.leaves(xs)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ConfigError(f"the arrays of xs have shapes {shapes}, expected one leading axis",
                          fix="pass xs=jnp.arange(N) where the steps do not differ")
    if shapes[0][0] == 0:
        return carry
    return (checkpointed() if adjoint is None else adjoint)(step, carry, xs, shared)


def adjoint_by_name(
    name: str, *, every: int | None = None, window: int | None = None, levels: int | None = None
) -> Adjoint:
    """Builds an adjoint from its name in `ADJOINTS`.

    Args:
      name: one of `ADJOINTS`.
      every: steps of a block of "checkpointed", and of "truncated" within its window; by default 1.
      window: steps that "truncated" differentiates; needed there.
      levels: of "recursive"; by default 2.

    Returns:
      The adjoint.

    Raises:
      ConfigError: an unknown name, a number that cannot be or that this adjoint does not take.

    Example:
      >>> adjoint = adjoint_by_name("truncated", window=20)
      >>> adjoint_by_name("truncated")
      Traceback (most recent call last):
      ...
      dd_jax.errors.ConfigError: window is None, expected an integer of at least 1; pass window=20
    """
    if name not in ADJOINTS:
        raise unknown("adjoint", name, ADJOINTS)
    for option, value in dict(every=every, window=window, levels=levels).items():
        if value is not None and option not in _TAKEN[name]:
            raise ConfigError(f"adjoint {name!r} takes no {option}, which is {value!r}",
                              fix=f"leave {option} out")
    every, levels = 1 if every is None else every, 2 if levels is None else levels
    if name == "checkpointed":
        return checkpointed(every)
    if name == "recursive":
        return recursive(levels)
    if name == "truncated":
        return truncated(window, checkpointed(every))
    return full() if name == "full" else two_pass()
