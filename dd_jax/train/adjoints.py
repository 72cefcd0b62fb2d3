"""How an inner loop is differentiated: what is kept for the way back, and what is left out.

For N steps, counting the states of the loop (parameters and optimizer state) and the graphs of
steps (everything that the derivative of one step needs) that are held at the same time:

  adjoint             gradient        kept                                  steps run again
  full                exact           N graphs                              none
  checkpointed(k)     exact           N / k states, k graphs                N
  recursive(l)        exact           about l N^(1/l) states, one graph     l N
  truncated(w)        last w steps    what `within` keeps for w steps       those of `within`
  two_pass            exact at N = 1  no state but the first, one graph     N

An adjoint is a function (step, carry, xs, shared) -> carry that runs all steps; to write another
one is to write such a function. `unroll` says what the arguments are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from dd_jax.errors import require_whole
from dd_jax.types import PyTree

Step = Callable[[PyTree, PyTree, PyTree], PyTree]
Adjoint = Callable[[Step, PyTree, PyTree, PyTree], PyTree]


def full() -> Adjoint:
    """Keeps the graph of every step: the fastest where it fits.

    Example:
      >>> import numpy as np
      >>> float(full()(lambda carry, x, rate: carry - rate * x, 1.0, np.ones(3), 0.25))
      0.25
    """
    return _scan


def checkpointed(every: int = 1) -> Adjoint:
    """Keeps the state before each block of steps and runs the block again on the way back.

    Args:
      every: k, steps of a block; the last one may be shorter.

    Returns:
      An exact adjoint that holds ceil(N / k) states and the graphs of k steps.

    Raises:
      ConfigError: `every` is not a whole number of at least 1.

    Example:
      >>> run = checkpointed(2)
      >>> xs = jax.numpy.arange(3)
      >>> loss = lambda rate: run(lambda carry, x, rate: carry * (1 - rate), 1.0, xs, rate)
      >>> float(jax.grad(loss)(0.5))  # of (1 - rate)^3
      -0.75
    """
    require_whole("every", every, example=1)

    def run(step, carry, xs, shared):
        if every == 1:
            return _scan(_rerun(step), carry, xs, shared)
        return _in_blocks(partial(_scan, step), carry, xs, shared, size=every)

    return run


def recursive(levels: int = 2) -> Adjoint:
    """Checkpoints blocks of steps inside blocks: exact, with the memory of a root of N.

    Level l cuts its n steps into about n^(1/l) blocks and hands each to level l - 1; level 1 keeps
    the state before every step. With levels near log2 N memory grows with the logarithm of N.

    Args:
      levels: l; each holds about N^(1/l) states and runs the steps once more.

    Returns:
      An exact adjoint. Where the blocks of a level cannot be equal, the shorter last one is
      compiled by itself.

    Raises:
      ConfigError: `levels` is not a whole number of at least 1.

    Example:
      >>> run = recursive(3)
      >>> xs = jax.numpy.arange(3)
      >>> loss = lambda rate: run(lambda carry, x, rate: carry * (1 - rate), 1.0, xs, rate)
      >>> float(jax.grad(loss)(0.5))
      -0.75
    """
    require_whole("levels", levels, example=2)

    def run(step, carry, xs, shared, level=levels):
        count = steps_in(xs)
        if level == 1 or count < 4:  # fewer cannot be cut into two blocks of two
            return _scan(_rerun(step), carry, xs, shared)

        def block(carry, xs, shared):
            return run(step, carry, xs, shared, level - 1)

        return _in_blocks(block, carry, xs, shared, size=_block(count, level))

    return run


def truncated(window: int, within: Adjoint | None = None) -> Adjoint:
    """Differentiates the last steps only: what came before counts as a constant.

    carry_{N-w} and what the first N - w steps saw of `shared` are behind a stop-gradient, so the
    gradient in the first carry is zero. Biased unless w >= N, where it is `within` itself.

    Args:
      window: w, steps that are differentiated.
      within: the adjoint of those; `checkpointed()` by default.

    Returns:
      An adjoint with the memory that `within` takes for w steps.

    Raises:
      ConfigError: `window` is not a whole number of at least 1.

    Example:
      >>> run = truncated(1)
      >>> xs = jax.numpy.arange(3)
      >>> loss = lambda rate: run(lambda carry, x, rate: carry * (1 - rate), 1.0, xs, rate)
      >>> float(jax.grad(loss)(0.5))  # of c (1 - rate) with c = 0.25
      -0.25
    """
    require_whole("window", window, example=20)
    within = checkpointed() if within is None else within

    def run(step, carry, xs, shared):
        first = max(steps_in(xs) - window, 0)
        if first:
            # Before and after: what never gets a tangent leaves nothing behind for the way back.
            start, constant = jax.lax.stop_gradient((carry, shared))
            early = jax.tree.map(lambda x: x[:first], xs)
            carry = jax.lax.stop_gradient(_scan(step, start, early, constant))
        return within(step, carry, jax.tree.map(lambda x: x[first:], xs), shared)

    return run


def steps_in(xs: PyTree) -> int:
    """N, the length of the leading axis of the inputs of the steps."""
    return jax.tree.leaves(xs)[0].shape[0]


def _scan(step: Step, carry: PyTree, xs: PyTree, shared: PyTree) -> PyTree:
    return jax.lax.scan(lambda carry, x: (step(carry, x, shared), None), carry, xs)[0]


def _rerun(step: Step) -> Step:
    """The step that keeps its arguments only; for the body of a scan, where nothing is shared."""
    return jax.checkpoint(step, prevent_cse=False)


def _in_blocks(block: Step, carry: PyTree, xs: PyTree, shared: PyTree, *, size: int) -> PyTree:
    """Runs `block` over every `size` steps, keeping the states between; the last may be shorter."""
    count = steps_in(xs)
    size = min(size, count)
    whole = count // size
    head = jax.tree.map(lambda x: x[: whole * size].reshape(whole, size, *x.shape[1:]), xs)
    carry = _scan(_rerun(block), carry, head, shared)
    if whole * size < count:
        tail = jax.tree.map(lambda x: x[whole * size :], xs)
        carry = jax.checkpoint(block)(carry, tail, shared)
    return carry


def _block(count: int, level: int) -> int:
    """Steps of a block of about count^(1 - 1/level): one that divides `count` where one is near."""
    best = -(-count // max(2, round(count ** (1 / level))))
    return next((size for size in range(best, min(2 * best, count)) if count % size == 0), best)
