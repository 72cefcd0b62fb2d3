"""Iterative solvers of H v = g for a positive definite H that is known only by its products.

Both minimise the quadratic 1/2 v^T H v - v^T g from v = 0, for a fixed number of steps and one
product with H per step, and watch m(v) = v^T (H v - 2 g), which is twice that quadratic: 0 at the
start, -g^T H^{-1} g at the solution, and free of cost since H v is at hand.

Conjugate gradients are the better solver of one fixed system. Adam needs a learning rate, which
`probe_rate` finds, but also takes an H that is estimated anew in every step.

Source: the tuned Adam solver is that of Loo et al., Dataset Distillation with Convexified Implicit
Gradients, ICML 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from dd_jax.errors import ConfigError, require_whole
from dd_jax.types import PyTree


class QuadraticSolve(NamedTuple):
    """The result of a solver.

    Attributes:
      solution: v, a tree like g.
      monitor: [steps], v^T (H v - 2 g) after each step; falling from 0 where all goes well.
      residual: [], ||H v - g|| of the solution.
    """

    solution: PyTree
    monitor: jax.Array
    residual: jax.Array


def _dot(a: PyTree, b: PyTree) -> jax.Array:
    parts = [jnp.vdot(x, y, precision="highest")
             for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    return sum(parts[1:], parts[0])


def _add(a: PyTree, scale: jax.Array, b: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x + scale.astype(x.dtype) * y, a, b)


def _check_steps(steps: int) -> None:
    require_whole("steps", steps, example=20)


def conjugate_gradients(
    matvec: Callable[[PyTree], PyTree], rhs: PyTree, *, steps: int
) -> QuadraticSolve:
    """Solves H v = g by `steps` conjugate gradient steps from 0.

    After k steps the error in the norm of H is at most 2 ((sqrt c - 1) / (sqrt c + 1))^k of the
    first, with c the condition number. The quadratic falls in every step, the residual need not.
    Rounding can make the iterates leave the solution again after they have reached it, so the one
    with the lowest quadratic is returned, and of those that are equal in it to rounding the one
    with the smallest residual.

    Args:
      matvec: v -> H v, H symmetric positive definite, on trees like `rhs`.
      rhs: g, a tree of floating-point arrays.
      steps: number of products with H.

    Returns:
      A `QuadraticSolve`; its residual is the recursively updated one, its monitor that of every
      iterate.

    Raises:
      ConfigError: fewer than 1 step.

    Example:
      >>> import jax.numpy as jnp
      >>> out = conjugate_gradients(lambda v: jnp.array([1.0, 4.0]) * v, jnp.ones(2), steps=2)
      >>> [round(float(v), 4) for v in out.solution]
      [1.0, 0.25]
    """
    _check_steps(steps)

    def divide(a, b):
        # 0 / 0 after the exact solution: stand still.
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)

    def step(carry, _):
        v, residual, direction, square, best = carry
        product = matvec(direction)
        alpha = divide(square, _dot(direction, product))
        v = _add(v, alpha, direction)
        residual = _add(residual, -alpha, product)
        new = _dot(residual, residual)
        direction = _add(residual, divide(new, square), direction)
        monitor = -_dot(v, jax.tree.map(jnp.add, residual, rhs))
        slack = 100 * jnp.finfo(monitor.dtype).eps * jnp.abs(best[2])
        lower, equal = monitor < best[2] - slack, monitor <= best[2] + slack
        better = lower | (equal & (new < best[1]))
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), (v, new, monitor), best)
        return (v, residual, direction, new, best), monitor

    zero, square = optax.tree.zeros_like(rhs), _dot(rhs, rhs)
    start = (zero, rhs, rhs, square, (zero, square, jnp.zeros_like(square)))
    (*_, (v, square, _)), monitor = jax.lax.scan(step, start, None, length=steps)
    return QuadraticSolve(v, monitor, jnp.sqrt(square))


def adam_quadratic(
    matvec: Callable[[PyTree], PyTree], rhs: PyTree, *, steps: int, rate: jax.Array | float
) -> QuadraticSolve:
    """Solves H v = g by `steps` Adam steps from 0 on 1/2 v^T H v - v^T g.

    The gradient at 0 is -g, so that `steps` products with H serve the steps and the residual.

    Args:
      matvec: v -> H v, on trees like `rhs`.
      rhs: g, a tree of floating-point arrays.
      steps: number of Adam steps and of products with H.
      rate: Adam's learning rate, may be traced; see `probe_rate`.

    Returns:
      A `QuadraticSolve`.

    Raises:
      ConfigError: fewer than 1 step.

    Example:
      >>> import jax.numpy as jnp
      >>> out = adam_quadratic(lambda v: 2 * v, jnp.ones(2), steps=200, rate=0.05)
      >>> [round(float(v), 2) for v in out.solution]
      [0.5, 0.5]
    """
    _check_steps(steps)
    adam = optax.scale_by_adam()
    rate = jnp.asarray(rate)

    def step(carry, _):
        v, product, moments = carry
        gradient = jax.tree.map(jnp.subtract, product, rhs)
        updates, moments = adam.update(gradient, moments)
        v = _add(v, -rate, updates)
        product = matvec(v)
        monitor = _dot(v, jax.tree.map(lambda h, g: h - 2 * g, product, rhs))
        return (v, product, moments), monitor

    zero = optax.tree.zeros_like(rhs)
    start = (zero, zero, adam.init(zero))
    (v, product, _), monitor = jax.lax.scan(step, start, None, length=steps)
    return QuadraticSolve(v, monitor, optax.tree.norm(jax.tree.map(jnp.subtract, product, rhs)))


def falls(monitor: jax.Array) -> jax.Array:
    """[] bool: the monitor of a run falls in every step, the first step from 0 included.

    Args:
      monitor: [steps], as in `QuadraticSolve`; a NaN does not fall.

    Example:
      >>> import jax.numpy as jnp
      >>> bool(falls(jnp.array([-1.0, -2.0]))), bool(falls(jnp.array([-1.0, -0.5])))
      (True, False)
    """
    before = jnp.concatenate([jnp.zeros((1,), monitor.dtype), monitor[:-1]])
    return jnp.all(monitor < before)


def probe_rate(
    run: Callable[[jax.Array], jax.Array],
    start: float,
    *,
    up: float = 1.2,
    down: float = 0.7,
    max_tries: int = 100,
) -> jax.Array:
    """The learning rate search: raised while a trial run still falls, then lowered once.

    The rate is multiplied by `up` after every trial, as long as `falls(run(rate))` and at most
    `max_tries` times, and at last by `down`: the official search ends with down * up times the
    first rate that failed.

    Args:
      run: rate [] -> monitor [steps] of a trial run.
      start: the first rate tried.
      up: factor above 1.
      down: factor between 0 and 1.
      max_tries: upper bound on trial runs.

    Returns:
      [] float32.

    Raises:
      ConfigError: a factor on the wrong side of 1, a start that is not positive, no tries.

    Example:
      >>> import jax.numpy as jnp
      >>> rate = probe_rate(lambda r: jnp.where(r < 1.0, -1.0, 1.0)[None], 0.5, up=2.0, down=0.5)
      >>> float(rate)
      1.0
    """
    for label, value, low, high in (("start", start, 0.0, float("inf")), ("up", up, 1.0, 1e6),
                                    ("down", down, 0.0, 1.0 + 1e-9)):
        if not low < value < high:
            raise ConfigError(f"{label} is {value!r}, expected between {low:g} and {high:g}",
                              fix="pass for example start=1e-5, up=1.2, down=0.7")
    if max_tries < 1:
        raise ConfigError(f"max_tries is {max_tries}, expected at least 1",
                          fix="pass max_tries=100")

    def go_on(carry):
        _, falling, tries = carry
        return falling & (tries < max_tries)

    def attempt(carry):
        rate, _, tries = carry
        falling = falls(run(rate))
        return rate * up, falling, tries + 1

    first = (jnp.asarray(start, jnp.float32), jnp.asarray(True), jnp.zeros((), jnp.int32))
    return down * jax.lax.while_loop(go_on, attempt, first)[0]
